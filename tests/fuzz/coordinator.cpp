// Requests of clients and of workers to a real coordinator with its catalogue: whatever they ask, each is answered once at most, and not with
// `internal`; when the coordinator stops, nothing is left unanswered; and what it has written down can be read again.
//
//   input  events: u8 kind (of kRequests, then a connection's end, then time that passes) | a request: u8 connection (of 4), u8 message bytes,
//          message; a connection's end: u8 connection; time: u8 tenths of a second
//
// No worker is ever reached: each that registers is said to listen where nobody does. 64 events at most.

#include <unistd.h>

#include <array>
#include <filesystem>
#include <future>
#include <memory>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "coordinator/server.h"
#include "core/log.h"
#include "tests/fuzz/fuzz_target.h"

namespace kvgrid::fuzz {
namespace {

using comm::MessageType;
using coordinator::Catalogue;
using coordinator::Coordinator;

constexpr int kEventsMax = 64;
constexpr const char* kNobody = "unix:/nonexistent/kvgrid-fuzz";

constexpr std::array kRequests{
    MessageType::status,        MessageType::register_model, MessageType::list_models,    MessageType::open_sequence,
    MessageType::fork_sequence, MessageType::close_sequence, MessageType::list_sequences, MessageType::register_worker,
    MessageType::heartbeat,     MessageType::layer,          MessageType::keep_sequence,  MessageType::give_up_prefix,
};

// In memory, where there is such a place.
class StateDirectory {
  public:
    StateDirectory() {
        const std::filesystem::path memory = "/dev/shm";
        path_ = (std::filesystem::exists(memory) ? memory : std::filesystem::temp_directory_path()) /
                ("kvgrid-fuzz-" + std::to_string(getpid()));
        std::filesystem::remove_all(path_);
    }
    ~StateDirectory() { std::filesystem::remove_all(path_); }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

// Of a worker that nobody is to be reached at; other messages as they are.
std::string harmless(MessageType type, std::string message) {
    wire::RegisterWorkerRequest worker;
    if (type != MessageType::register_worker || !worker.ParseFromString(message)) return message;
    if (!worker.endpoint().empty()) worker.set_endpoint(kNobody);
    return worker.SerializeAsString();
}

class Run {
  public:
    Run(comm::IoThread& io, const std::filesystem::path& state) : io_(io), state_(state) {}

    // On the I/O thread.
    void all(Input input) {
        start();
        for (int event = 0; event < kEventsMax && !input.empty(); ++event) {
            const std::size_t kind = input.byte() % (kRequests.size() + 2);
            if (kind < kRequests.size()) {
                ask(kRequests[kind], input);
            } else if (kind == kRequests.size()) {
                coordinator_->connection_lost(input.byte() % 4);
            } else {
                clock_.advance(std::chrono::milliseconds(100) * input.byte());
                coordinator_->tick();
            }
        }
        stop();
        start();  // from what was written down
        stop();
    }

  private:
    void start() {
        const Coordinator::Options options{
            .membership = {.expected_workers = 2, .dead_after = std::chrono::milliseconds(2000)}};
        auto catalogue = Catalogue::open(state_);
        require(catalogue.ok(), "a catalogue can be opened again");
        auto made = Coordinator::start(io_, clock_, *std::move(catalogue), options);
        require(made.ok(), "a coordinator goes on from its catalogue");
        coordinator_ = *std::move(made);
    }

    void ask(MessageType type, Input& input) {
        const comm::ConnectionId connection = input.byte() % 4;
        std::string message = harmless(type, std::string(input.text(input.byte())));
        ++asked_;
        const auto is_answered = std::make_shared<bool>(false);
        comm::Responder responder(
            [this, is_answered](MessageType reply, const std::string& text, const comm::Payload&) {
                require(!*is_answered, "a request is answered once");
                *is_answered = true;
                ++answered_;
                if (reply != MessageType::error) return;
                const auto said = comm::unpack<wire::ErrorReply>(comm::Frame{{.type = reply}, text, {}});
                require(said.ok(), "an error can be read");
                const Error error = comm::from_wire(*said);
                require(stopping_ || !(error == Errc::internal), "a request shows no defect");
                require(!error.message.empty(), "an error says something");
            });
        coordinator::serve(*coordinator_,
                           {{{.type = type, .request = 1}, std::move(message), {}}, connection, Deadline::max()},
                           std::move(responder));
    }

    // What waits for the lead is dropped, which answers it.
    void stop() {
        stopping_ = true;
        coordinator_->stop();
        coordinator_.reset();
        require(answered_ == asked_, "nothing is left unanswered");
        stopping_ = false;
    }

    comm::IoThread& io_;
    const std::filesystem::path state_;
    ManualClock clock_;
    std::unique_ptr<Coordinator> coordinator_;
    int asked_ = 0, answered_ = 0;
    bool stopping_ = false;
};

void run(const std::uint8_t* data, std::size_t size) {
    const StateDirectory state;
    comm::IoThread io;
    std::promise<void> done;
    io.post([&] {
        Run(io, state.path()).all({data, size});
        io.post([&] { done.set_value(); });  // after the work that stopping has posted
    });
    done.get_future().wait();
}

}  // namespace
}  // namespace kvgrid::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    kvgrid::init_log("fuzz", kvgrid::LogLevel::error);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    kvgrid::fuzz::run(data, size);
    return 0;
}
