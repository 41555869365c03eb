#pragma once

namespace kvgrid::cli {

// While this lives, the first Ctrl-C (SIGINT), SIGTERM or SIGHUP is only noted, so that whoever runs can stop what it started; the
// second one ends the process as usual. One at a time in a process.
class InterruptWatch {
  public:
    InterruptWatch();
    ~InterruptWatch();
    InterruptWatch(const InterruptWatch&) = delete;
    InterruptWatch& operator=(const InterruptWatch&) = delete;

    bool interrupted() const;
};

}  // namespace kvgrid::cli
