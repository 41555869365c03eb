#pragma once

#include <signal.h>
#include <termios.h>

#include <chrono>
#include <string>
#include <vector>

#include "core/result.h"

namespace kvgrid::cli {

// The whole terminal, for a display that is drawn again and again: the alternate screen, no echo, no cursor.
//
//   Restored  by the destructor. Signals that would end or stop the program come as events instead, so that there is always time to;
//             they are blocked in the calling thread, and so in threads that it makes later. Make it before them.
//   Threads   one.
class Screen {
  public:
    // `unsupported`: standard input and output are no terminal.
    static Result<Screen> open();
    Screen(Screen&& other) noexcept;
    Screen& operator=(Screen&&) = delete;
    ~Screen();

    int columns() const { return columns_; }
    int rows() const { return rows_; }

    // Draws the lines from the top; the rest of the screen is empty.
    void draw(const std::vector<std::string>& lines);

    enum class Event {
        none,     // the time is over
        quit,     // q, Ctrl-C, SIGTERM, SIGHUP, or the terminal has gone
        redraw,   // another size, back from being stopped, or a key
        refresh,  // the descriptor that was watched can be read
    };
    // Waits for the next event. Stopping (Ctrl-Z) happens in here: the terminal is given back meanwhile.
    Event wait(std::chrono::milliseconds timeout, int watched_descriptor);

  private:
    Screen(int signals, const sigset_t& blocked_before, const termios& before);
    void enter();
    void leave();
    void measure();
    void stop();
    Event take_signal();
    Event take_key();

    int signals_;  // a signalfd; -1: moved from
    sigset_t blocked_before_;
    termios before_;
    int columns_ = 80, rows_ = 24;
};

}  // namespace kvgrid::cli
