#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace kvgrid {

// The expected outcomes of a request that are not success. Each comment says what the caller does about it.
// The numbers are part of the wire protocol: append, never renumber.
enum class Errc : int {
    invalid_argument = 1,  // the request itself is wrong: mend it, the same bytes will be refused again
    not_found = 2,         // the model, sequence or step does not exist (any more): look the id up again
    already_exists = 3,    // the id or name is taken: use what is there or choose another
    no_room = 4,  // pages are short: close or truncate sequences, or send fewer tokens (the message says how many fit)
    busy = 5,     // another step holds the sequence, or a queue is full: wait for it, then retry
    wrong_state = 6,       // not now: the message says what has to come first (or came already)
    stale_generation = 7,  // membership has changed: ask the coordinator for the new one, then retry
    deadline_exceeded =
        8,  // no answer in time: the operation may or may not have happened; begin again from the sequence's length
    unavailable = 9,   // could not reach the other side, or it is not ready yet: retry with back-off
    peer_lost = 10,    // a worker of the grid died: its shard is gone until the grid is formed again
    unsupported = 11,  // understood, but not built: the message names what is supported
    corrupt = 12,      // bytes do not say what they should: do not trust this file or this peer
    internal = 13,     // a defect in kvgrid: report it with the message
};

// "no_room", as it stands in messages, metrics and JSON.
const char* name_of(Errc code);

// What went wrong, why, and what to do, in one line.
struct Error {
    Errc code;
    std::string message;

    // "no_room: needs 6 pages, 2 are free; ..."
    std::string to_string() const;

    friend bool operator==(const Error& error, Errc code) { return error.code == code; }
};

// Thrown for broken promises and broken machines only. Nobody catches it but `main`.
class Fatal : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

[[noreturn]] void fatal(const std::string& what);

// A value or an Error. Taking the value of an error is a broken promise of the caller and throws Fatal.
template <class T>
class [[nodiscard]] Result {
  public:
    Result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : held_(std::in_place_index<1>, std::move(error)) {}
    Result(Errc code, std::string message) : Result(Error{code, std::move(message)}) {}

    bool ok() const { return held_.index() == 0; }
    explicit operator bool() const { return ok(); }

    T& value() & { return require(), std::get<0>(held_); }
    const T& value() const& { return require(), std::get<0>(held_); }
    T value() && { return require(), std::get<0>(std::move(held_)); }  // a value: it outlives a temporary Result
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    const Error& error() const { return std::get<1>(held_); }

  private:
    void require() const {
        if (!ok()) fatal("value() of a failed Result: " + error().to_string());
    }

    std::variant<T, Error> held_;
};

// Success without a value, or an Error.
template <>
class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_(std::move(error)), ok_(false) {}
    Result(Errc code, std::string message) : Result(Error{code, std::move(message)}) {}

    bool ok() const { return ok_; }
    explicit operator bool() const { return ok_; }
    void value() const {
        if (!ok_) fatal("value() of a failed Result: " + error_.to_string());
    }
    const Error& error() const { return error_; }

  private:
    Error error_{Errc::internal, ""};
    bool ok_ = true;
};

using Status = Result<void>;

}  // namespace kvgrid
