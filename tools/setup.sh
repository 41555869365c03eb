#!/usr/bin/env bash
# Installs what is missing to build and test kvgrid. dpkg is asked first: when nothing is missing this is quick and needs no network.
# Where CMAKE_PREFIX_PATH says where libraries are, nothing is installed: such a host looks after itself (tools/gpu_prefix.sh).
set -euo pipefail

if [[ -n ${CMAKE_PREFIX_PATH:-} ]]; then
    echo "setup: CMAKE_PREFIX_PATH is set, so nothing is installed" >&2
    exit 0
fi

packages=(
    g++ cmake ninja-build ccache git python3 # tools
    python3-dev python3-venv # the Python package
    libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev libhwy-dev
    libprotobuf-dev protobuf-compiler libsqlite3-dev
    libopenmpi-dev openmpi-bin
    libgtest-dev libbenchmark-dev libopenblas-dev groff-base
    prometheus-cpp-dev prometheus # the library; and the server with promtool, for tests
)
boost_minor_min=81         # Boost 1.81: cmake/KvgridDependencies.cmake
clang_versions=(16 17 18 19 20) # ./dev fuzz: any of them; cmake/Clang.cmake
format_package=clang-format-14 # whose form `./dev check` holds the tree to

# Of the packages named (patterns allowed): those that are here.
installed() { dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' || true; }

# From package names on stdin: those of a Boost that is new enough, oldest first.
new_enough_boost() {
    sed -n 's/^libboost1\.\([0-9]\+\)-dev$/\1/p' | sort -n | awk -v min="$boost_minor_min" '$1 >= min {print "libboost1." $1 "-dev"}'
}

offered() { apt-cache pkgnames "$1" | grep -x -- "$1" >/dev/null; }

# "clang-16 libclang-rt-16-dev" of the first version for which the command given, with these names, says yes.
clang_packages() {
    local version
    for version in "${clang_versions[@]}"; do
        if "$@" "clang-$version" && "$@" "libclang-rt-$version-dev"; then
            echo "clang-$version libclang-rt-$version-dev"
            return
        fi
    done
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif [[ -t 0 ]]; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    cat >&2 <<'NEEDS'
setup: this system has no apt, so nothing is installed. If CMake does not find something, install it by hand:
  tools      g++ 12 or later, cmake 3.25 or later, ninja, python3, git; ccache and clang-format 14 if you like;
             Clang 15 or later with libFuzzer for './dev fuzz'
  libraries  Boost 1.81 or later, fmt, spdlog, nlohmann-json, CLI11, toml++, Highway, Protobuf with protoc, SQLite 3,
             Open MPI 4 with mpirun, prometheus-cpp, GoogleTest, Google Benchmark, OpenBLAS
  Python     3.10 or later with its headers and venv
  tests      prometheus and promtool
NEEDS
    exit 0
fi

missing=()
present=$(installed "${packages[@]}" "$format_package" 'libboost1.*-dev' 'clang-*' 'libclang-rt-*-dev')
for package in "${packages[@]}"; do
    grep -qx -- "$package" <<<"$present" || missing+=("$package")
done
[[ -n $(new_enough_boost <<<"$present") ]] || missing+=(boost)
is_present() { grep -qx -- "$1" <<<"$present"; }
[[ -n $(clang_packages is_present) ]] || missing+=(clang)
if ! grep -qx -- "$format_package" <<<"$present" && ! command -v clang-format >/dev/null; then missing+=("$format_package"); fi
((${#missing[@]})) || exit 0

if [[ $EUID -ne 0 ]] && ! command -v sudo >/dev/null; then
    echo "setup: missing: ${missing[*]}" >&2
    echo "setup: neither root nor sudo here: run './dev setup' once as root, then go on as yourself" >&2
    exit 1
fi

echo "setup: installing ${missing[*]}" >&2
apt_options=(-q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
as_root apt-get "${apt_options[@]}" update

names=()
for package in "${missing[@]}"; do
    case $package in
        boost)
            boost=$(apt-cache pkgnames libboost1. | new_enough_boost | sed -n 1p)
            if [[ -z $boost ]]; then
                echo "setup: apt offers no Boost of 1.$boost_minor_min or later: Debian 12 and Ubuntu 24.04 do" >&2
                exit 1
            fi
            names+=("$boost")
            ;;
        clang)
            read -ra clang < <(clang_packages offered)
            if ((${#clang[@]} == 0)); then
                echo "setup: apt offers no Clang of ${clang_versions[*]} with its run-time library: './dev fuzz' will not build" >&2
                exit 1
            fi
            names+=("${clang[@]}")
            ;;
        "$format_package")
            if offered "$format_package"; then names+=("$format_package"); else names+=(clang-format); fi
            ;;
        *) names+=("$package") ;;
    esac
done

# The package would also run a Prometheus that listens on every address, now and at each start. A mask stops both; what is installed
# already, and a unit that somebody made, stays as it is.
prometheus_unit=/etc/systemd/system/prometheus.service
if [[ " ${names[*]} " == *" prometheus "* && ! -e $prometheus_unit && ! -L $prometheus_unit ]]; then
    as_root mkdir -p "${prometheus_unit%/*}"
    as_root ln -s /dev/null "$prometheus_unit"
    echo "setup: prometheus is for the tests: its service is masked ('systemctl unmask prometheus' if you want it)" >&2
fi

# --no-remove: what is on this machine stays, even where it is in the way.
if ! as_root apt-get "${apt_options[@]}" install -y --no-install-recommends --no-remove "${names[@]}"; then
    echo "setup: apt could not install ${names[*]}" >&2
    echo "setup: if it would have to remove something first (an older libboost1.*-dev, say), remove that yourself, then repeat" >&2
    exit 1
fi
