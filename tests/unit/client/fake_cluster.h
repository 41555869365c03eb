#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/kvgrid.h"
#include "comm/rpc/server.h"
#include "comm/wire/messages.h"

namespace kvgrid {

// A server in this process that answers each type of request as a test says and remembers what it was asked. A type
// without an answer gets `unsupported`.
class FakeServer {
  public:
    using Answer = std::function<void(const comm::Frame&, comm::Responder)>;

    FakeServer();
    ~FakeServer();

    std::string endpoint() const { return endpoint_; }
    void stop();   // breaks all connections; nobody listens
    void start();  // at the same endpoint

    void on(comm::MessageType type, Answer answer);
    void reply(comm::MessageType type, comm::MessageType with, const google::protobuf::MessageLite& message,
               comm::Payload payload = {});
    void fail(comm::MessageType type, Error error);
    void hang(comm::MessageType type);  // never answers, until stop()

    int count(comm::MessageType type) const;
    comm::Frame last(comm::MessageType type) const;
    void wait_for(comm::MessageType type, int count);  // gives up, failing the test, after 10 s

    template <class M>
    M last_message(comm::MessageType type) const {
        return comm::unpack<M>(last(type)).value();
    }

  private:
    void take(comm::Request request, comm::Responder responder);

    std::string endpoint_;
    mutable std::mutex mutex_;
    std::condition_variable arrived_;
    std::map<comm::MessageType, Answer> answers_;
    std::map<comm::MessageType, std::vector<comm::Frame>> requests_;
    std::vector<comm::Responder> hanging_;
    comm::IoThread io_;
    std::unique_ptr<comm::Server> server_;
};

// A coordinator and a lead that are ready, in generation 5, and agree to everything: models get id 3, sequences 11, 12,
// ..., and steps id 7; a layer's output is its q.
struct FakeCluster {
    FakeCluster();

    void set_status(std::uint64_t generation, const std::string& lead_endpoint);  // "": not ready
    Client connect(std::chrono::milliseconds timeout = std::chrono::seconds(10));

    static constexpr std::uint64_t kLeadWorker = 9;  // pid 77 on host x

    FakeServer coordinator;
    FakeServer lead;
};

// 2 layers that own KV and a third that reads the second's; a row of q has 4 * 32 * 4 bytes, one of k 2 * 32 * 4.
ModelSpec test_spec();
inline constexpr std::size_t kQueryRowBytes = 4 * 32 * 4;
inline constexpr std::size_t kKvRowBytes = 2 * 32 * 4;

std::vector<std::byte> filled(std::size_t count, int value);

}  // namespace kvgrid
