#include "client/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace kvgrid::cli {

namespace {

using namespace std::chrono_literals;

constexpr int kBarCells = 24;
constexpr auto kBarInterval = 200ms;
constexpr auto kLinesInterval = 2'000ms;
constexpr const char* kEraseLine = "\r\033[K";

TimePoint::duration interval_of(ProgressStyle style) {
    return style == ProgressStyle::bar ? kBarInterval : kLinesInterval;
}

}  // namespace

ProgressStyle progress_style(bool quiet) {
    if (quiet) return ProgressStyle::none;
    return isatty(STDERR_FILENO) ? ProgressStyle::bar : ProgressStyle::lines;
}

std::string progress_text(const std::string& title, const ProgressState& state, ProgressStyle style) {
    const double share = state.total > 0 ? static_cast<double>(state.done) / static_cast<double>(state.total) : 1;
    std::string text = "  " + title;
    if (style == ProgressStyle::bar) {
        const int cells = std::clamp(static_cast<int>(share * kBarCells), 0, kBarCells);
        text += fmt::format("  [{:#<{}}{:.<{}}]", "", cells, "", kBarCells - cells);
    }
    text += fmt::format("  {:3.0f}%", std::floor(share * 100));
    if (state.done >= state.total) {
        text += fmt::format("  {:.1f} s", state.elapsed.count());
    } else if (state.done > 0) {
        text += fmt::format("  ETA {:.0f} s", std::ceil(state.elapsed.count() * (1 - share) / share));
    }
    return state.detail.empty() ? text : text + "  " + state.detail;
}

Progress::Progress(std::string title, std::int64_t total, ProgressStyle style, const Clock& clock)
    : title_(std::move(title)),
      total_(total),
      style_(style),
      clock_(clock),
      start_(clock.now()),
      next_(start_ + interval_of(style)) {}

Progress::~Progress() {
    if (line_open_) fmt::print(stderr, "\n");
}

bool Progress::is_due() const {
    return style_ != ProgressStyle::none && clock_.now() >= next_;
}

void Progress::update(std::int64_t done, const std::string& detail) {
    if (style_ == ProgressStyle::none || (!is_due() && done < total_)) return;
    next_ = clock_.now() + interval_of(style_);
    const std::string text = progress_text(title_, {done, total_, clock_.now() - start_, detail}, style_);
    line_open_ = style_ == ProgressStyle::bar;
    fmt::print(stderr, "{}{}{}", line_open_ ? kEraseLine : "", text, line_open_ ? "" : "\n");
    std::fflush(stderr);
}

}  // namespace kvgrid::cli
