#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>

#include "client/python/bindings.h"
#include "core/clock.h"

namespace kvgrid::python {

namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

// A connect that waits looks for Ctrl-C so often.
constexpr milliseconds kAttempt{500};

bool worth_another_attempt(const Error& error) {
    return error == Errc::unavailable || error == Errc::deadline_exceeded;
}

// One long wait, in attempts: Python's signal handlers run between them.
ClientHandle connect(const std::string& endpoint, int timeout_ms, bool wait_until_ready) {
    const ClientOptions options{.timeout = milliseconds(timeout_ms), .wait_until_ready = false};
    const Deadline deadline = deadline_in(options.timeout);
    while (wait_until_ready && timeout_ms > 0) {
        const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
        const auto attempt = [&] {
            const nb::gil_scoped_release waiting;
            return Client::connect(endpoint, {.timeout = std::clamp(left, 1ms, kAttempt)});
        }();
        if (attempt) break;
        if (!worth_another_attempt(attempt.error()) || left <= kAttempt) throw CallFailed(attempt.error());
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
    }
    return {taken(Client::connect(endpoint, options)), "client"};
}

using Parts = std::vector<std::pair<const SequenceHandle*, int>>;

StepKind kind_of(const std::string& name) {
    if (name == "write") return StepKind::write;
    if (name == "iterate") return StepKind::iterate;
    if (name == "attend") return StepKind::attend;
    throw CallFailed(Error{Errc::invalid_argument, "kind is '" + name + "': must be 'attend', 'write' or 'iterate'"});
}

StepHandle begin(const ClientHandle& client, const Parts& wanted, const std::string& kind) {
    std::vector<std::shared_ptr<Sequence>> sequences;  // held while the call goes on
    std::vector<StepPart> parts;
    for (const auto& [sequence, tokens] : wanted) {
        sequences.push_back(sequence->use());
        parts.push_back({sequences.back().get(), tokens});
    }
    const StepKind wanted_kind = kind_of(kind);
    auto step = client.call([&](Client& on) { return on.begin(parts, wanted_kind); });
    return {std::move(step), "step"};
}

std::vector<ListedSequence> list_sequences(const ClientHandle& client, std::uint64_t model) {
    return client.call([&](Client& on) -> Result<std::vector<ListedSequence>> {
        std::vector<ListedSequence> all;
        for (SequencePageOptions next{.model = {model}};; next.after = all.back().id) {
            auto page = on.list_sequences(next);
            if (!page) return page.error();
            all.insert(all.end(), page->sequences.begin(), page->sequences.end());
            if (!page->more || page->sequences.empty()) return all;
        }
    });
}

}  // namespace

void bind_client(nb::module_& module) {
    nb::class_<ClientHandle>(module, "Client")
        .def("status", [](const ClientHandle& client) { return client.call([](Client& on) { return on.status(); }); })
        .def("register",
             [](const ClientHandle& client, const ModelSpec& spec, int head_parts, int sequence_parts,
                std::uint64_t pool_bytes_per_worker) {
                 return client.call([&](Client& on) {
                     return on.register_model(spec, {{head_parts, sequence_parts}, pool_bytes_per_worker});
                 });
             })
        .def("models", [](const ClientHandle& client) { return client.call([](Client& on) { return on.models(); }); })
        .def("open",
             [](const ClientHandle& client, const RegisteredModel& model, std::string tenant,
                std::int64_t expected_tokens, std::int64_t window, std::int64_t sinks, const nb::bytes& prefix) {
                 const OpenOptions options{std::move(tenant), expected_tokens, window, sinks, prefix_from(prefix)};
                 return SequenceHandle(client.call([&](Client& on) { return on.open(model, options); }), "sequence");
             })
        .def("attach",
             [](const ClientHandle& client, std::uint64_t id) {
                 return SequenceHandle(client.call([&](Client& on) { return on.attach({id}); }), "sequence");
             })
        .def("sequences", &list_sequences)
        .def("close_sequence", [](const ClientHandle& client,
                                  std::uint64_t id) { client.call([&](Client& on) { return on.close({id}); }); })
        .def("begin", &begin)
        .def("occupancy",
             [](const ClientHandle& client) { return client.call([](Client& on) { return on.occupancy(); }); })
        .def("end", &ClientHandle::end)
        .def_prop_ro("ended", &ClientHandle::ended);
    module.def("connect", &connect, nb::arg("endpoint"), nb::arg("timeout_ms"), nb::arg("wait_until_ready"));
}

}  // namespace kvgrid::python
