#include "client/cli/command_line.h"

namespace kvgrid::cli {

void add_commands(CommandLine& line) {
    add_demo(line);
    add_cluster(line);
    add_model(line);
    add_sequence(line);
    add_trace_replay(line);
    add_trace_record(line);
    add_bench(line);
    add_top(line);
    add_doctor(line);
    add_config(line);
    add_completion(line);
    add_manual(line);
    add_version(line);
}

}  // namespace kvgrid::cli
