// One layer call of one new token, of a client on the worker's host: with its tensors in its own GPU memory, and through the host's, over real
// processes. bf16, 32 query and 8 KV heads of 128, 4 layers.
//
//   gpu_client_bench [CALLS [WORKERS]]        default 4,000 of each kind and context, one worker; several share what GPUs there are
//
//   gpu, host    Step::layer_on_device and Step::layer, p50 and p99, in us
//   lead         of a call in GPU memory: kernels, join and the wait for them, by the lead's own clock, p50 in us

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "client/cli/demo/long_context.h"
#include "client/cli/latencies.h"
#include "client/cli/local/local_cluster.h"
#include "client/cli/local/worker_gpus.h"
#include "comm/rpc/channel.h"
#include "comm/wire/messages.h"
#include "kernels/cuda/device.h"
#include "tests/bench/bench_model.h"
#include "tests/e2e/gpu_client.h"

namespace kvgrid::bench {
namespace {

using cli::Latencies;
using comm::MessageType;

constexpr int kLayers = 4;
constexpr int kWarmUpSteps = 20;

class Bed {
  public:
    explicit Bed(int workers)
        : cluster_(cli::LocalCluster::start({.workers = workers,
                                             .memory_bytes_per_worker = std::uint64_t{4} << 30,
                                             .one_process = cli::must_share_gpus(workers, cli::worker_gpus()),
                                             .state_dir = {},
                                             .worker_arguments = {"--device", "gpu"},
                                             .interrupted = {}})
                       .value()),
          client_(Client::connect(cluster_.endpoint()).value()),
          model_(client_.register_model(spec_).value()) {
        const ClusterStatus status = client_.status().value();
        generation_ = status.generation.value;
        const auto lead = std::ranges::find(status.workers, 0, &ClusterWorker::rank);
        lead_.emplace(io_, comm::parse_endpoint(lead->endpoint).value());
        tensors_.put(tokens_.input());
        client_.share_device_memory(tensors_.handle(), tensors_.bytes()).value();
        wire::ShareDeviceMemoryRequest share;
        share.set_handle(tensors_.handle().data(), tensors_.handle().size());
        share.set_bytes(tensors_.bytes());
        ask<wire::Empty>(MessageType::share_device_memory, share);
    }

    void run(int context_tokens, int calls) {
        Sequence sequence = client_.open(model_).value();
        for (int at = 0; at < context_tokens; at += cli::kChunkTokens) {
            const int tokens = std::min(cli::kChunkTokens, context_tokens - at);
            cli::write_chunk(client_, spec_, sequence, cli::context_chunk(spec_, at / cli::kChunkTokens, tokens),
                             tokens)
                .value();
        }
        Latencies gpu, host, lead;
        for (int step = -kWarmUpSteps; step * kLayers < calls; ++step) {  // alternating, so that disturbances hit all
            Latencies ignored;
            add_calls(sequence, true, step < 0 ? ignored : gpu);
            add_calls(sequence, false, step < 0 ? ignored : host);
            add_lead_times(sequence, step < 0 ? ignored : lead);
        }
        const auto us = [](const Latencies& of, double share) { return of.percentile_ms(share) * 1e3; };
        fmt::print("{:>8} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f}\n", context_tokens, us(gpu, 0.5), us(gpu, 0.99),
                   us(host, 0.5), us(host, 0.99), us(lead, 0.5));
        sequence.close().value();
    }

  private:
    void add_calls(const Sequence& sequence, bool on_gpu, Latencies& latencies) {
        const StepPart part{&sequence, 1};
        Step step = client_.begin({&part, 1}).value();
        for (int layer = 0; layer < kLayers; ++layer) {
            const auto start = std::chrono::steady_clock::now();
            if (on_gpu) {
                step.layer_on_device(layer, tensors_.places()).value();
            } else {
                step.layer(layer, tokens_.input()).value();
            }
            latencies.add(std::chrono::steady_clock::now() - start);
        }
        step.abort().value();
    }

    // They are in its replies, which the client does not show.
    void add_lead_times(const Sequence& sequence, Latencies& latencies) {
        wire::BeginStepRequest begin;
        begin.set_model(model_.id.value);
        auto& part = *begin.add_parts();
        part.set_sequence(sequence.id().value);
        part.set_tokens(1);
        wire::StepRequest end;
        end.set_step(ask<wire::BeginStepReply>(MessageType::begin_step, begin).step());
        for (int layer = 0; layer < kLayers; ++layer) {
            wire::LayerRequest call;
            call.set_step(end.step());
            call.set_layer(layer);
            const DeviceTensors at = tensors_.places();
            call.mutable_on_device()->set_q(at.q);
            call.mutable_on_device()->set_k(at.k);
            call.mutable_on_device()->set_v(at.v);
            call.mutable_on_device()->set_o(at.o);
            const auto reply = ask<wire::LayerReply>(MessageType::layer, call);
            latencies.add(std::chrono::nanoseconds(reply.compute_ns() + reply.join_ns()));
        }
        ask<wire::Empty>(MessageType::abort_step, end);
    }

    template <class Reply>
    Reply ask(MessageType type, const google::protobuf::MessageLite& message) {
        const auto frame =
            lead_->call(type, generation_, comm::pack(message), {}, deadline_in(std::chrono::seconds(10)));
        return comm::unpack<Reply>(frame.value()).value();
    }

    const ModelSpec spec_ = bench_model("bench", kLayers);
    const cli::NewTokens tokens_ = cli::new_tokens(spec_, 1, 0, 1);
    e2e::GpuTensors tensors_{1 << 20};  // let go after the connections below
    cli::LocalCluster cluster_;
    Client client_;
    RegisteredModel model_;
    std::uint64_t generation_ = 0;
    comm::IoThread io_;
    std::optional<comm::Channel> lead_;
};

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) {
    using namespace kvgrid;
    const int calls = argc > 1 ? std::max(1, std::atoi(argv[1])) : 4'000;
    const int workers = argc > 2 ? std::max(1, std::atoi(argv[2])) : 1;
    if (kernels::device_count() == 0) {
        fmt::print("skipped: this machine has no CUDA device (or no driver for one)\n");
        return 0;
    }
    bench::Bed bed(workers);
    fmt::print("{}, {} workers\n{:>8} {:>9} {:>9} {:>9} {:>9} {:>9}\n", kernels::current_device().name, workers,
               "context", "gpu p50", "gpu p99", "host p50", "host p99", "lead p50");
    for (const int context : {256, 8'192, 65'536}) bed.run(context, calls);
    return 0;
}
