#include "tests/monitor/scrape.h"

#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "tests/monitor/http_socket.h"

namespace kvgrid::tests {

double Scrape::at(const std::string& name_and_labels) const {
    const auto found = series.find(name_and_labels);
    if (found == series.end()) throw std::runtime_error("not exported: " + name_and_labels);
    return found->second;
}

Scrape parse_scrape(const std::string& text) {
    Scrape scrape{.text = text, .series = {}, .names = {}};
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("# TYPE ")) scrape.names.insert(line.substr(7, line.find(' ', 7) - 7));
        if (line.empty() || line.starts_with("#")) continue;
        const std::size_t space = line.rfind(' ');
        scrape.series[line.substr(0, space)] = std::strtod(line.c_str() + space + 1, nullptr);
    }
    return scrape;
}

Scrape scrape(const std::string& http_endpoint) {
    const HttpAnswer answer = http_get(http_endpoint, "/metrics");
    if (answer.status != 200) throw std::runtime_error("no metrics at " + http_endpoint + ": " + answer.body);
    return parse_scrape(answer.body);
}

}  // namespace kvgrid::tests
