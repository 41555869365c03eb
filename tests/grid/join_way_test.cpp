// All ranks of a grid join the same way, also where a GPU's NCCL refuses on one of them only; and an executor says which way it is, once there is
// a model.

#include <gtest/gtest.h>

#include <thread>

#include "comm/collective/thread_collective.h"
#include "tests/grid/driver.h"
#include "worker/cpu_device.h"
#include "worker/executor.h"
#include "worker/host_join.h"

namespace kvgrid::tests {
namespace {

using worker::Device;
using worker::DeviceStatus;
using worker::Join;
using worker::JoinIdentity;
using worker::JoinPlace;
using worker::JoinWay;

// Says that it joins over NCCL, and moves nothing.
class MadeUpJoin final : public Join {
  public:
    void prepare(const ModelSpec&, const GridShape&, int, std::uint64_t) override {}
    std::span<std::byte> whole() override { return {}; }
    std::span<float> partial() override { return {}; }
    std::span<float> lse() override { return {}; }
    JoinWay way() const override { return JoinWay::nccl; }
    bool is_on_device() const override { return true; }
    Result<comm::Payload> finish(Deadline) override { return comm::Payload{}; }
    std::uint64_t bytes_received() const override { return 0; }
};

// A GPU that is none: its NCCL forms a communicator, or refuses.
class MadeUpGpu final : public Device {
  public:
    MadeUpGpu(std::uint64_t index, bool refuses) : index_(index), refuses_(refuses) {}

    DeviceStatus status() const override { return cpu_.status(); }
    Result<std::unique_ptr<worker::DeviceModel>> make_model(const worker::DeviceModelShape& shape,
                                                            std::uint32_t page_count) override {
        return cpu_.make_model(shape, page_count);
    }

  protected:
    JoinIdentity join_identity() const override {
        return {.host = 1, .device = index_, .process = index_, .is_gpu = 1, .nccl_version = 22809};
    }
    Result<std::unique_ptr<Join>> make_gathering_join(const JoinPlace&, bool) override {
        if (refuses_) return {Errc::unavailable, "made up"};
        return std::unique_ptr<Join>(std::make_unique<MadeUpJoin>());
    }

  private:
    worker::CpuDevice cpu_{1};
    const std::uint64_t index_;
    const bool refuses_;
};

// What the executors of such ranks say after their first model.
std::vector<DeviceStatus> statuses(std::vector<std::unique_ptr<Device>> devices) {
    const int ranks = static_cast<int>(devices.size());
    auto collectives = comm::make_thread_collectives(ranks, Generation{7});
    std::vector<DeviceStatus> all(ranks);
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
        threads.emplace_back([&, rank] {
            worker::Shard shard(rank, 16 << 20, *devices[rank]);
            worker::Executor executor(shard, *collectives[rank], std::chrono::seconds(20));
            EXPECT_EQ(executor.device_status().join, JoinWay::none);
            const worker::AddModel add{ModelId{1}, make_spec(1, 4, 4, 32, Dtype::f32), {ranks, 1}, 1 << 20};
            EXPECT_TRUE(executor.apply({1, add, {}}).status);
            all[rank] = executor.device_status();
        });
    }
    threads.clear();
    return all;
}

std::vector<std::unique_ptr<Device>> gpus(std::vector<bool> refusing) {
    std::vector<std::unique_ptr<Device>> devices;
    for (const bool refuses : refusing) devices.push_back(std::make_unique<MadeUpGpu>(devices.size(), refuses));
    return devices;
}

void expect(const std::vector<DeviceStatus>& statuses, JoinWay way, std::uint64_t nccl_generation) {
    for (const DeviceStatus& status : statuses) {
        EXPECT_EQ(status.join, way) << name_of(status.join);
        EXPECT_EQ(status.nccl_generation, nccl_generation);
    }
}

TEST(JoinWays, GpusJoinInTheirMemoryUnderTheGridsGeneration) {
    expect(statuses(gpus({false, false})), JoinWay::nccl, 7);
}

TEST(JoinWays, WhereOneRankIsRefusedAllJoinOverTheHosts) {
    expect(statuses(gpus({false, true, false, false})), JoinWay::host, 0);
}

TEST(JoinWays, ARankThatIsAloneAsksNobody) {
    expect(statuses(gpus({true})), JoinWay::alone, 0);
}

TEST(JoinWays, CpusJoinOverTheHosts) {
    std::vector<std::unique_ptr<Device>> devices;
    for (int rank = 0; rank < 2; ++rank) devices.push_back(std::make_unique<worker::CpuDevice>(1));
    expect(statuses(std::move(devices)), JoinWay::host, 0);
}

}  // namespace
}  // namespace kvgrid::tests
