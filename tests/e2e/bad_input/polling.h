#pragma once

#include <chrono>
#include <thread>

#include "core/clock.h"

namespace kvgrid::e2e {

// Asks again and again: what is waited for happens in other processes.
template <class Condition>
bool becomes_true(std::chrono::milliseconds timeout, Condition condition) {
    for (const Deadline deadline = deadline_in(timeout); std::chrono::steady_clock::now() < deadline;) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return condition();
}

}  // namespace kvgrid::e2e
