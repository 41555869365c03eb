#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "core/clock.h"

namespace kvgrid::cli {

enum class ProgressStyle {
    none,
    lines,  // a plain line now and then, for logs
    bar,    // one line, drawn again and again, for terminals
};

// `bar` if standard error is a terminal, else `lines`; `none` if `quiet`.
ProgressStyle progress_style(bool quiet);

struct ProgressState {
    std::int64_t done;
    std::int64_t total;
    std::chrono::duration<double> elapsed;
    std::string detail;  // what else is worth seeing just now
};

// "  fill  [#########...........]  45%  ETA 4 s  DETAIL", without the bar for plain lines.
std::string progress_text(const std::string& title, const ProgressState& state, ProgressStyle style);

// How far a long piece of work is, on standard error; time left at the speed so far.
class Progress {
  public:
    Progress(std::string title, std::int64_t total, ProgressStyle style, const Clock& clock);
    ~Progress();  // leaves a terminal's line
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    // Whether an update would be shown now: asked first where the detail costs something.
    bool is_due() const;
    // Shown if due, and when all is done.
    void update(std::int64_t done, const std::string& detail = "");

  private:
    const std::string title_;
    const std::int64_t total_;
    const ProgressStyle style_;
    const Clock& clock_;
    const TimePoint start_;
    TimePoint next_;
    bool line_open_ = false;
};

}  // namespace kvgrid::cli
