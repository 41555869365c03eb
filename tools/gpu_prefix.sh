#!/usr/bin/env bash
# Makes a folder with the libraries that a GPU host without a package registry may lack, out of Debian or Ubuntu packages, without installing
# anything. Run it on a machine with apt, take the folder along, and build there:
#
#   tools/gpu_prefix.sh [FOLDER]                         default: carry/prefix
#   CMAKE_PREFIX_PATH=$PWD/carry/prefix/usr ./dev build
set -euo pipefail

folder=${1:-carry/prefix}
packages=(
    libhwy-dev libhwy1
    prometheus-cpp-dev libprometheus-cpp-core1.0 libprometheus-cpp-pull1.0 libprometheus-cpp-push1.0 # CMake wants all three
    libsqlite3-dev libsqlite3-0
    libtomlplusplus-dev libtomlplusplus3
)

mkdir -p "$folder"
downloads=$(mktemp -d)
trap 'rm -rf "$downloads"' EXIT
chmod 755 "$downloads"
for package in "${packages[@]}"; do
    apt-cache show "$package" >/dev/null 2>&1 || { echo "gpu_prefix: apt does not know $package: left out" >&2; continue; }
    (cd "$downloads" && apt-get -q download "$package" >/dev/null 2>&1) || { echo "gpu_prefix: $package could not be downloaded" >&2; exit 1; }
done
for package in "$downloads"/*.deb; do dpkg -x "$package" "$folder"; done
rm -rf "$folder"/usr/share/doc
# Of prometheus-cpp only the core is used; the rest would want libraries of its own.
sed -i 's/^set(PROMETHEUS_CPP_ENABLE_\(PULL\|PUSH\) ON)/set(PROMETHEUS_CPP_ENABLE_\1 OFF)/' \
    "$folder"/usr/lib/*/cmake/prometheus-cpp/prometheus-cpp-config.cmake
du -sh "$folder"
