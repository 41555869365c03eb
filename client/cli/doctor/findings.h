#pragma once

#include <string>
#include <vector>

#include "client/cli/doctor/facts.h"

namespace kvgrid::cli {

enum class Verdict {
    ok,
    note,  // good to know
    warn,  // will hurt some day
    fail,  // kvgrid does not work like this
};
const char* name_of(Verdict verdict);

struct Finding {
    std::string check;  // "open files"
    Verdict verdict;
    std::string what;
    std::string remedy;  // of everything that is not ok
};

// Each check of the table judges some facts, and finds one thing. In the order in which they are shown.
std::vector<Finding> findings(const Facts& facts);

// Whether nothing failed.
bool healthy(const std::vector<Finding>& found);

}  // namespace kvgrid::cli
