#pragma once

#include <map>
#include <set>
#include <string>

namespace kvgrid::tests {

// What stands in Prometheus' text format.
struct Scrape {
    std::string text;
    std::map<std::string, double> series;  // by name and labels, as written: kvgrid_pages{model="m",state="free"}
    std::set<std::string> names;           // of the metrics: those that have a TYPE

    // Throws, naming it, if it is not there.
    double at(const std::string& name_and_labels) const;
    double pages(const std::string& model, const std::string& state) const {
        return at("kvgrid_pages{model=\"" + model + "\",state=\"" + state + "\"}");
    }
    double of_model(const std::string& name, const std::string& model) const {
        return at(name + "{model=\"" + model + "\"}");
    }
};

Scrape parse_scrape(const std::string& text);

// GET /metrics; throws if the answer is not 200.
Scrape scrape(const std::string& http_endpoint);

}  // namespace kvgrid::tests
