#pragma once

#include <nanobind/nanobind.h>
#include <sys/types.h>
#include <unistd.h>

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "core/result.h"

namespace kvgrid::python {

namespace nb = nanobind;

// A failed call on its way to Python, where it becomes the kvgrid.Error of its code (kvgrid/errors.py).
class CallFailed : public std::exception {
  public:
    explicit CallFailed(Error error) : error_(std::move(error)) {}
    const Error& error() const { return error_; }
    const char* what() const noexcept override { return error_.message.c_str(); }

  private:
    Error error_;
};
void translate_errors();  // once, when the module is made

[[noreturn]] inline void fail(Errc code, std::string message) {
    throw CallFailed({code, std::move(message)});
}

template <class T>
T taken(Result<T> result) {
    if (!result) throw CallFailed(result.error());
    if constexpr (!std::is_void_v<T>) return std::move(result).value();
}

// A client, sequence or step as a Python object holds it.
//
//   Threads   any; the object goes with the last call that is on it, without the GIL, since its end may wait.
//   Forks     a forked process has the memory but not the threads: there, calls are refused (wrong_state) and the object is left alone.
template <class T>
class Handle {
  public:
    Handle(T object, const char* name)
        : object_(std::make_shared<T>(std::move(object))), name_(name), process_id_(getpid()) {}
    Handle(std::shared_ptr<T> object, const char* name)
        : object_(std::move(object)), name_(name), process_id_(getpid()) {}
    Handle(Handle&&) noexcept = default;
    ~Handle() { end(); }

    bool ended() const { return object_ == nullptr; }

    std::shared_ptr<T> use() const {
        if (ended()) fail(Errc::wrong_state, std::string("this ") + name_ + " is closed");
        if (process_id_ != getpid()) {
            fail(Errc::wrong_state,
                 std::string("this ") + name_ + " belongs to the process that was forked: connect again in this one");
        }
        return object_;
    }

    void end() {
        std::shared_ptr<T> object = std::exchange(object_, nullptr);
        if (object && process_id_ != getpid()) {
            new std::shared_ptr<T>(std::move(object));  // never destroyed: its threads are not here
            return;
        }
        const nb::gil_scoped_release waiting;
        object.reset();
    }

    // f(object) without the GIL; its value, or its error as an exception.
    template <class F>
    auto call(F&& f) const {
        std::shared_ptr<T> object = use();
        auto result = [&] {
            const nb::gil_scoped_release waiting;
            auto value = f(*object);
            object.reset();
            return value;
        }();
        return taken(std::move(result));
    }

  private:
    std::shared_ptr<T> object_;
    const char* name_;
    pid_t process_id_;
};

}  // namespace kvgrid::python
