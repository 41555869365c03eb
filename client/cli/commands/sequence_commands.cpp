#include <fmt/format.h>

#include "client/cli/find_cluster.h"
#include "client/cli/json.h"

namespace kvgrid::cli {

namespace {

struct ListOptions {
    std::uint64_t model = 0;
    std::uint64_t after = 0;
    int limit = 0;
};

nlohmann::json as_json(const ListedSequence& sequence) {
    return {{"sequence", sequence.id.value},
            {"model", sequence.model.value},
            {"tenant", sequence.tenant},
            {"parent", sequence.parent.value},
            {"kept_tokens", sequence.kept_tokens}};
}

nlohmann::json as_json(SequenceId id, const SequenceInfo& info) {
    return {{"sequence", id.value},
            {"model", info.model.value},
            {"length", info.length},
            {"window", info.window},
            {"sinks", info.sinks},
            {"step_open", info.step_open},
            {"pages_by_rank", info.pages_by_rank}};
}

// Page by page, each printed as it comes: there may be many.
ExitCode list_text(const ClusterCommand& command, Client& client, const ListOptions& options) {
    fmt::print("{:>10}  {:>6}  {:<20}  {:>11}  {}\n", "SEQUENCE", "MODEL", "TENANT", "FORKED FROM", "KEPT FOR");
    int left = options.limit;
    for (SequencePageOptions next{.model = {options.model}, .after = {options.after}, .limit = left};;) {
        const auto page = client.list_sequences(next);
        if (!page) return command.fail(page.error());
        for (const ListedSequence& each : page->sequences) {
            fmt::print("{:>10}  {:>6}  {:<20}  {:>11}  {}\n", each.id.value, each.model.value, each.tenant,
                       each.parent ? fmt::format("{}", each.parent.value) : "",
                       each.kept_tokens > 0 ? fmt::format("{} tokens", each.kept_tokens) : "");
        }
        left -= static_cast<int>(page->sequences.size());
        if (!page->more || page->sequences.empty()) return ExitCode::done;
        if (options.limit > 0 && left <= 0) break;
        next.after = page->sequences.back().id;
        next.limit = std::max(left, 0);
    }
    if (!command.output().quiet) fmt::print(stderr, "there are more: give the last of these as --after\n");
    return ExitCode::done;
}

ExitCode list_json(const ClusterCommand& command, Client& client, const ListOptions& options) {
    nlohmann::json list = nlohmann::json::array();
    bool more = true;
    SequencePageOptions next{.model = {options.model}, .after = {options.after}, .limit = options.limit};
    while (more && (options.limit == 0 || next.limit > 0)) {
        const auto page = client.list_sequences(next);
        if (!page) return command.fail(page.error());
        for (const ListedSequence& each : page->sequences) list.push_back(as_json(each));
        more = page->more && !page->sequences.empty();
        if (more) next.after = page->sequences.back().id;
        if (options.limit > 0) next.limit -= static_cast<int>(page->sequences.size());
    }
    print_json("sequence.list", {{"sequences", std::move(list)}, {"more", more}});
    return ExitCode::done;
}

ExitCode run_list(const ClusterCommand& command, const ListOptions& options) {
    auto client = command.connect();
    if (!client) return command.fail(client.error());
    return command.output().json ? list_json(command, *client, options) : list_text(command, *client, options);
}

Result<SequenceInfo> inspect(Client& client, SequenceId id) {
    auto sequence = client.attach(id);
    if (!sequence) return sequence.error();
    auto info = sequence->inspect();
    sequence->release();  // it is somebody else's
    return info;
}

ExitCode run_inspect(const ClusterCommand& command, SequenceId id) {
    auto client = command.connect();
    if (!client) return command.fail(client.error());
    const auto info = inspect(*client, id);
    if (!info) return command.fail(info.error(), info.error() == Errc::not_found ? "kvgrid sequence list" : "");
    if (command.output().json) {
        print_json("sequence.inspect", as_json(id, *info));
        return ExitCode::done;
    }
    fmt::print("sequence       {}\nmodel          {}\nlength         {}\n", id.value, info->model.value, info->length);
    fmt::print("window         {}\n", info->window == 0 ? "the model's own" : fmt::format("{}", info->window));
    fmt::print("sinks          {}\nstep open      {}\n", info->sinks, info->step_open ? "yes" : "no");
    fmt::print("pages by rank  {}\n", fmt::join(info->pages_by_rank, " "));
    return ExitCode::done;
}

// All that can be closed are; the first refusal is the command's.
ExitCode run_close(const ClusterCommand& command, const std::vector<std::uint64_t>& ids) {
    auto client = command.connect();
    if (!client) return command.fail(client.error());
    std::vector<std::uint64_t> closed;
    std::optional<Error> first_refusal;
    for (const std::uint64_t id : ids) {
        const Status done = client->close({id});
        if (done) {
            closed.push_back(id);
        } else if (!first_refusal) {
            first_refusal = done.error();
        }
    }
    if (command.output().json) {
        print_json("sequence.close", {{"closed", closed}});
    } else if (!closed.empty()) {
        fmt::print("closed {}\n", fmt::join(closed, " "));
    }
    if (!first_refusal) return ExitCode::done;
    return command.fail(*first_refusal, *first_refusal == Errc::not_found ? "kvgrid sequence list" : "");
}

}  // namespace

void add_sequence(CommandLine& line) {
    CLI::App& noun = line.noun("sequence", "contexts whose keys and values the cluster holds");

    CLI::App& list = line.command(noun, "list", "the sequences that are open, of all clients");
    auto options = std::make_shared<ListOptions>();
    list.add_option("--model", options->model, "only those of this model (its number)")->type_name("MODEL");
    list.add_option("--after", options->after, "only those with higher numbers")->type_name("SEQUENCE");
    list.add_option("--limit", options->limit, "at most so many")->check(CLI::Range(1, 1'000'000'000));
    on_cluster(line, list, [options](const ClusterCommand& command) { return run_list(command, *options); });

    CLI::App& inspecting = line.command(noun, "inspect", "length, window and pages of one sequence");
    auto id = std::make_shared<std::uint64_t>(0);
    inspecting.add_option("SEQUENCE", *id, "its number")->required()->type_name("");
    on_cluster(line, inspecting, [id](const ClusterCommand& command) { return run_inspect(command, {*id}); });

    CLI::App& closing = line.command(noun, "close", "close sequences, whoever opened them; their pages are free then");
    auto ids = std::make_shared<std::vector<std::uint64_t>>();
    closing.add_option("SEQUENCE", *ids, "their numbers")->required()->type_name("");
    on_cluster(line, closing, [ids](const ClusterCommand& command) { return run_close(command, *ids); });
}

}  // namespace kvgrid::cli
