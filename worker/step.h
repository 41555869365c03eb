#pragma once

#include <vector>

#include "core/ids.h"
#include "core/model_spec.h"
#include "core/result.h"

// What the lead and the shards both know of steps, so that they say the same.
namespace kvgrid::worker {

enum class StepKind {
    attend,   // each layer in order, with q
    write,    // each layer that owns KV in order, without q
    iterate,  // layers in any order, and again: k and v replace what the step wrote for its new tokens
};

// Tensors that a layer call does not bring though its layer takes them: in an iterate step only.
struct LeftOut {
    bool q = false;
    bool kv = false;

    friend bool operator==(const LeftOut&, const LeftOut&) = default;
};

// Tensors that a layer call brings.
struct Brings {
    bool q = false;
    bool kv = false;  // both k and v

    friend bool operator==(const Brings&, const Brings&) = default;
};

Error no_such_step(StepId step);

// unsupported where the model cannot have steps of this kind.
Status check_kind(const ModelSpec& spec, StepKind kind);

// How far a step has come, and which layer calls it takes next.
//
//   Invariant  in an iterate step, a layer whose KV was not written for the new tokens is read by no call, and not committed.
class StepProgress {
  public:
    StepProgress(const ModelSpec& spec, StepKind kind);

    // What a call of `layer` brings. wrong_state: another layer comes next; all are done; or the KV that it reads was not written yet.
    // invalid_argument: there is no such layer, or the call leaves out what it may not.
    Result<Brings> check(const ModelSpec& spec, StepId step, int layer, LeftOut left_out) const;
    // Such a call has come.
    void pass(const ModelSpec& spec, int layer, Brings brings);
    // wrong_state unless the step can be committed.
    Status check_complete(const ModelSpec& spec, StepId step) const;

    // Of a step whose layers come in order; layer_count when all are done.
    int next_layer() const { return next_layer_; }
    // The layer that comes after `layer`.
    int layer_after(const ModelSpec& spec, int layer) const;

  private:
    Status check_order(const ModelSpec& spec, StepId step, int layer) const;
    Result<Brings> check_iteration(const ModelSpec& spec, StepId step, int layer, LeftOut left_out) const;

    StepKind kind_;
    int next_layer_;
    std::vector<bool> written_;  // [layer], in an iterate step
};

}  // namespace kvgrid::worker
