#include "client/cli/local/worker_gpus.h"

#include <fmt/format.h>

#include "client/cli/local/child_process.h"
#include "client/cli/local/program_beside.h"
#include "client/cli/local/temporary_directory.h"
#include "client/cli/local/text_file.h"

namespace kvgrid::cli {

namespace {

constexpr std::chrono::seconds kPatience{30};  // a driver takes some seconds to wake up

}  // namespace

Result<std::vector<std::string>> worker_gpus() {
    const auto program = program_beside_this("kvgrid-worker");
    if (!program) return program.error();
    const auto directory = TemporaryDirectory::make();
    if (!directory) return directory.error();
    const auto answer = directory->path() / "devices";
    auto worker = ChildProcess::start({.arguments = {*program, "--list-devices"}, .environment = {}, .log = answer});
    if (!worker) return worker.error();
    if (!worker->wait_until(deadline_in(kPatience)))
        return {Errc::deadline_exceeded,
                fmt::format("{} --list-devices has not answered within {} s", program->string(), kPatience.count())};
    return lines_after(answer, "gpu ");
}

bool must_share_gpus(int workers, const Result<std::vector<std::string>>& gpus) {
    return gpus && !gpus->empty() && workers > static_cast<int>(gpus->size());
}

}  // namespace kvgrid::cli
