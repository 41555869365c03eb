#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"

namespace kvgrid::cli {

struct ChildCommand {
    std::vector<std::string> arguments;              // [0]: the program's path
    std::map<std::string, std::string> environment;  // beside the caller's own, or in its place
    std::filesystem::path log;                       // gets stdout and stderr; stdin is empty
    bool outlives_caller = false;                    // in a session of its own, and not killed with the caller
};

// A program that was started, in a process group of its own: a Ctrl-C in the terminal does not reach it. The kernel
// kills it when the thread that started it ends, so that it cannot outlive a caller that is killed.
//
//   Outlives a caller only where that is asked for (ChildCommand::outlives_caller, release).
//   Threads  start it from a thread that lives as long as it should.
//   Ends     the destructor kills the group and waits for the program.
class ChildProcess {
  public:
    // not_found: no such program. internal: the system refuses.
    static Result<ChildProcess> start(const ChildCommand& command);
    ChildProcess(ChildProcess&& other) noexcept;
    ChildProcess& operator=(ChildProcess&& other) noexcept;
    ~ChildProcess();

    pid_t process_id() const { return process_id_; }
    bool running();
    // "ended with exit status 3", "was ended by signal 9 (Killed)"; only once it is not running.
    std::string how_it_ended() const;

    void signal_group(int signal);       // nothing, once it is not running
    bool wait_until(Deadline deadline);  // whether it has ended
    void release() { process_id_ = 0; }  // of one that outlives the caller: it is not killed by the destructor

  private:
    explicit ChildProcess(pid_t process_id) : process_id_(process_id) {}
    void kill_and_wait();

    pid_t process_id_ = 0;  // 0: moved from
    bool ended_ = false;
    int wait_status_ = 0;
};

}  // namespace kvgrid::cli
