// A client whose tensors lie in its own GPU memory, against real workers on the same GPU in another process: steps give the bits that the same
// steps give through the host's memory, what CUDA cannot open is refused and changes nothing, and a client that is killed takes nothing with it.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "client/cli/demo/long_context.h"
#include "client/cli/local/child_process.h"
#include "client/cli/local/local_cluster.h"
#include "client/cli/local/temporary_directory.h"
#include "tests/e2e/bad_input/polling.h"
#include "tests/e2e/gpu_client.h"

namespace kvgrid::e2e {
namespace {

constexpr std::chrono::seconds kPatience{20};
constexpr std::uint64_t kPartBytes = 1 << 20;

std::string text_of(const std::filesystem::path& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
}

class GpuClient : public testing::Test {
  protected:
    explicit GpuClient(int workers = 1)
        : directory_(cli::TemporaryDirectory::make().value()),
          cluster_(cli::LocalCluster::start({.workers = workers,
                                             .memory_bytes_per_worker = std::uint64_t{256} << 20,
                                             .one_process = true,
                                             .state_dir = directory_.path(),
                                             .worker_arguments = {"--device", "gpu"},
                                             .interrupted = {}})
                       .value()),
          client_(Client::connect(cluster_.endpoint()).value()),
          model_(client_.register_model(spec_).value()) {}

    int lines_that_say(const std::string& part) const {
        const std::string log = text_of(directory_.path() / "workers.log");
        int count = 0;
        for (auto at = log.find(part); at != std::string::npos; at = log.find(part, at + 1)) ++count;
        return count;
    }
    bool log_says(const std::string& part) const { return lines_that_say(part) > 0; }

    // The same step of both sequences: through the host's memory, and in the GPU's.
    void compare_step(const Sequence& host, const Sequence& gpu, GpuTensors& tensors, int tokens) {
        const StepPart host_part{&host, tokens}, gpu_part{&gpu, tokens};
        Step through_host = client_.begin({&host_part, 1}).value();
        Step in_gpu = client_.begin({&gpu_part, 1}).value();
        for (int layer = 0; layer < spec_.layer_count(); ++layer) {
            const cli::NewTokens fresh = cli::new_tokens(spec_, ++runs_, layer, tokens);
            const auto expected = through_host.layer(layer, fresh.input()).value();
            tensors.put(fresh.input());
            const Status done = in_gpu.layer_on_device(layer, tensors.places());
            ASSERT_TRUE(done) << done.error().to_string();
            ASSERT_EQ(tensors.output(expected.size()), expected) << "layer " << layer << ", " << tokens << " tokens";
        }
        through_host.commit().value();
        in_gpu.commit().value();
    }
    void compare_kv(const Sequence& a, const Sequence& b, std::int64_t tokens) {
        for (int layer = 0; layer < spec_.layer_count(); ++layer) {
            const KvRows first = a.read_kv(layer, 0, tokens).value(), second = b.read_kv(layer, 0, tokens).value();
            EXPECT_EQ(first.k, second.k);
            EXPECT_EQ(first.v, second.v);
        }
    }

    const ModelSpec spec_ = gpu_client_spec();
    GpuTensors tensors_{kPartBytes};  // outlives the worker
    cli::TemporaryDirectory directory_;
    cli::LocalCluster cluster_;
    Client client_;
    RegisteredModel model_;
    std::uint64_t runs_ = 0;
};

struct GpuClientOfTwo : GpuClient {
    GpuClientOfTwo() : GpuClient(2) {}
};

TEST_F(GpuClientOfTwo, StepsGiveTheBitsOfTheHostsMemory) {
    ASSERT_TRUE(client_.share_device_memory(tensors_.handle(), tensors_.bytes()));
    EXPECT_EQ(lines_that_say(fmt::format("opened {} bytes of a client's GPU memory", tensors_.bytes())), 2);
    Sequence host = client_.open(model_).value(), gpu = client_.open(model_).value();
    compare_step(host, gpu, tensors_, 70);
    for (int token = 70; token < 100 && !HasFatalFailure(); ++token) compare_step(host, gpu, tensors_, 1);
    ASSERT_FALSE(HasFatalFailure());
    compare_kv(host, gpu, 100);
    EXPECT_TRUE(client_.unshare_device_memory());
    const std::string let_go = fmt::format("let {} bytes of a client's GPU memory go", tensors_.bytes());
    EXPECT_TRUE(becomes_true(kPatience, [&] { return lines_that_say(let_go) == 2; }));
}

TEST_F(GpuClient, StepsGiveTheBitsOfTheHostsMemory) {
    const Status shared = client_.share_device_memory(tensors_.handle(), tensors_.bytes());
    ASSERT_TRUE(shared) << shared.error().to_string();
    Sequence host = client_.open(model_).value(), gpu = client_.open(model_).value();
    compare_step(host, gpu, tensors_, 70);
    for (int token = 70; token < 200 && !HasFatalFailure(); ++token) compare_step(host, gpu, tensors_, 1);
    ASSERT_FALSE(HasFatalFailure());
    compare_kv(host, gpu, 200);

    EXPECT_TRUE(client_.unshare_device_memory());
    const std::string let_go = fmt::format("let {} bytes of a client's GPU memory go", tensors_.bytes());
    EXPECT_TRUE(becomes_true(kPatience, [&] { return log_says(let_go); }));
    const StepPart part{&gpu, 1};
    Step step = client_.begin({&part, 1}).value();
    EXPECT_EQ(step.layer_on_device(0, tensors_.places()).error(), Errc::wrong_state);
}

// Allocations under 2 MiB share a block of the driver's: the handle must lead to the right one.
TEST_F(GpuClient, ASmallAllocationIsFoundWhereItLies) {
    GpuTensors before(16 << 10), tensors(16 << 10);
    const Status shared = client_.share_device_memory(tensors.handle(), tensors.bytes());
    ASSERT_TRUE(shared) << shared.error().to_string();
    Sequence host = client_.open(model_).value(), gpu = client_.open(model_).value();
    for (int step = 0; step < 3 && !HasFatalFailure(); ++step) compare_step(host, gpu, tensors, 1);
    EXPECT_TRUE(client_.unshare_device_memory());
}

TEST_F(GpuClient, WhatCannotBeOpenedIsRefusedAndChangesNothing) {
    ASSERT_TRUE(client_.share_device_memory(tensors_.handle(), tensors_.bytes()));
    const Status larger = client_.share_device_memory(tensors_.handle(), tensors_.bytes() + (std::uint64_t{64} << 20));
    EXPECT_EQ(larger.error(), Errc::invalid_argument);
    std::array<std::byte, 64> nonsense;
    nonsense.fill(std::byte{0x5a});
    EXPECT_FALSE(client_.share_device_memory(nonsense, kPartBytes));

    Sequence host = client_.open(model_).value(), gpu = client_.open(model_).value();
    const StepPart part{&gpu, 1};
    Step step = client_.begin({&part, 1}).value();
    DeviceTensors outside = tensors_.places();
    outside.o = tensors_.bytes();
    EXPECT_EQ(step.layer_on_device(0, outside).error(), Errc::invalid_argument);
    EXPECT_TRUE(step.abort());
    compare_step(host, gpu, tensors_, 3);
    compare_kv(host, gpu, 3);
}

TEST_F(GpuClient, AKilledClientsMemoryIsLetGoAndOthersGoOn) {
    ASSERT_TRUE(client_.share_device_memory(tensors_.handle(), tensors_.bytes()));
    Sequence host = client_.open(model_).value(), gpu = client_.open(model_).value();
    const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "gpu_memory_holder";
    const auto log = directory_.path() / "holder.log";
    auto holder =
        cli::ChildProcess::start({.arguments = {program.string(), cluster_.endpoint()}, .environment = {}, .log = log})
            .value();
    ASSERT_TRUE(becomes_true(kPatience, [&] { return text_of(log).find("held") != std::string::npos; }))
        << text_of(log);
    compare_step(host, gpu, tensors_, 1);
    holder.signal_group(SIGKILL);
    ASSERT_TRUE(holder.wait_until(deadline_in(kPatience)));
    const std::string let_go = fmt::format("let {} bytes of a client's GPU memory go", std::uint64_t{12} << 20);
    EXPECT_TRUE(becomes_true(kPatience, [&] { return log_says(let_go); }));
    EXPECT_TRUE(becomes_true(kPatience, [&] { return client_.occupancy().value().steps_abandoned == 1; }));
    compare_step(host, gpu, tensors_, 1);
    compare_kv(host, gpu, 2);
}

}  // namespace
}  // namespace kvgrid::e2e
