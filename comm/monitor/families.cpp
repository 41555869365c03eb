#include "comm/monitor/families.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <iterator>

namespace kvgrid::comm {

Family::Family(prometheus::MetricType type, std::string name, std::string help) {
    family_.type = type;
    family_.name = std::move(name);
    family_.help = std::move(help);
}

Family& Family::add(double value, Labels labels) {
    prometheus::ClientMetric& sample = family_.metric.emplace_back();
    sample.label = std::move(labels);
    (family_.type == prometheus::MetricType::Counter ? sample.counter.value : sample.gauge.value) = value;
    return *this;
}

const prometheus::Histogram::BucketBoundaries& duration_buckets() {
    static const prometheus::Histogram::BucketBoundaries bounds{10e-6,  25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3,
                                                                2.5e-3, 5e-3,  10e-3, 25e-3,  50e-3,  0.1,    0.25,
                                                                0.5,    1,     2.5,   5,      10,     30,     60};
    return bounds;
}

std::string metrics_text(const std::vector<const prometheus::Collectable*>& sources) {
    std::vector<prometheus::MetricFamily> families;
    for (const prometheus::Collectable* source : sources) {
        auto some = source->Collect();
        std::move(some.begin(), some.end(), std::back_inserter(families));
    }
    std::erase_if(families, [](const prometheus::MetricFamily& family) { return family.metric.empty(); });
    std::ranges::sort(families, {}, &prometheus::MetricFamily::name);
    return prometheus::TextSerializer().Serialize(families);
}

}  // namespace kvgrid::comm
