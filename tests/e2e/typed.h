#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "client/cli/local/temporary_directory.h"

namespace kvgrid::e2e {

// What a command that was typed did.
struct Typed {
    int exit_code = -1;  // -1: it did not end in time, or by a signal
    std::string out, err;
};

// A user with a home of his own: nothing that the user of the tests has configured, or runs, is seen.
class User {
  public:
    User();
    // Ends what is left of a cluster that he started.
    ~User();

    // Types `kvgrid ARGUMENTS`; standard input is empty.
    Typed types(const std::vector<std::string>& arguments,
                std::chrono::milliseconds timeout = std::chrono::minutes(2)) const;

    std::map<std::string, std::string> environment;
    std::filesystem::path home() const { return directory_.path(); }

  private:
    cli::TemporaryDirectory directory_;
};

// The program's arguments and environment as exec wants them; valid while it lives.
class ExecText {
  public:
    ExecText(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& environment);
    char* const* arguments() const { return argument_pointers_.data(); }
    char* const* environment() const { return environment_pointers_.data(); }

  private:
    std::vector<std::string> arguments_, environment_;
    std::vector<char*> argument_pointers_, environment_pointers_;
};

}  // namespace kvgrid::e2e
