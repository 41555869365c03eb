#pragma once

#include <span>
#include <vector>

namespace kvgrid::cli {

// Attention of one query over keys that are shown one by one, in fp64: what the grid's answers are held against. It shares no code
// with the grid, on purpose.
//
//   o = sum_j exp(scale q.k_j) v_j / sum_j exp(scale q.k_j), with everything scaled by the largest exponent seen so far
//   Source  the online softmax of Milakov and Gimelshein, 2018.
class ExactAttention {
  public:
    // `query` outlives this.
    ExactAttention(std::span<const float> query, double scale);

    void see(std::span<const float> key, std::span<const float> value);
    std::vector<double> output() const;  // zeros if nothing was seen

  private:
    std::span<const float> query_;
    double scale_;
    double logit_max_;
    double denominator_ = 0;
    std::vector<double> numerator_;
};

}  // namespace kvgrid::cli
