#include "client/cli/replay/exact_attention.h"

#include <cmath>
#include <limits>

namespace kvgrid::cli {

ExactAttention::ExactAttention(std::span<const float> query, double scale)
    : query_(query), scale_(scale), logit_max_(-std::numeric_limits<double>::infinity()), numerator_(query.size()) {}

void ExactAttention::see(std::span<const float> key, std::span<const float> value) {
    double product = 0;
    for (std::size_t dim = 0; dim < query_.size(); ++dim) product += double{query_[dim]} * key[dim];
    const double logit = scale_ * product;
    if (logit > logit_max_) {
        const double shrink = std::exp(logit_max_ - logit);  // 0 for the first key
        denominator_ *= shrink;
        for (double& element : numerator_) element *= shrink;
        logit_max_ = logit;
    }
    const double weight = std::exp(logit - logit_max_);
    denominator_ += weight;
    for (std::size_t dim = 0; dim < numerator_.size(); ++dim) numerator_[dim] += weight * value[dim];
}

std::vector<double> ExactAttention::output() const {
    std::vector<double> output = numerator_;
    if (denominator_ > 0) {
        for (double& element : output) element /= denominator_;
    }
    return output;
}

}  // namespace kvgrid::cli
