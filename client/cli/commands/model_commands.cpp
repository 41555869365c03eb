#include <fmt/format.h>

#include "client/cli/find_cluster.h"
#include "client/cli/json.h"
#include "client/cli/local/text_file.h"
#include "core/units.h"

namespace kvgrid::cli {

namespace {

struct RegisterOptions {
    std::string spec_file;
    std::string hugging_face_file;
    std::string name;
    GridShape grid{0, 0};
    std::string pool;
};

// A config.json does not say what the model is called; the folder that it is in usually does.
std::string hugging_face_name(const RegisterOptions& options) {
    if (!options.name.empty()) return options.name;
    return std::filesystem::absolute(options.hugging_face_file).parent_path().filename();
}

Result<ModelSpec> read_spec(const RegisterOptions& options) {
    const std::string& file = options.spec_file.empty() ? options.hugging_face_file : options.spec_file;
    const auto text = whole_text(file);
    if (!text) return text.error();
    auto spec = options.spec_file.empty() ? parse_hugging_face_config(*text, hugging_face_name(options))
                                          : parse_model_spec(*text);
    if (!spec) return {spec.error().code, fmt::format("{}: {}", file, spec.error().message)};
    if (!options.name.empty()) spec->name = options.name;
    return spec;
}

Result<RegisteredModel> register_model(const ClusterCommand& command, const RegisterOptions& options) {
    const auto spec = read_spec(options);
    if (!spec) return spec.error();
    const auto pool_bytes = options.pool.empty() ? Result<std::uint64_t>(0) : parse_bytes(options.pool);
    if (!pool_bytes) return pool_bytes.error();
    auto client = command.connect();
    if (!client) return client.error();
    return client->register_model(*spec, {.grid = options.grid, .pool_bytes_per_worker = *pool_bytes});
}

void print_models(const std::vector<RegisteredModel>& models) {
    fmt::print("{:>6}  {:<32} {:>6} {:>8} {:>10} {:>12}  {}\n", "MODEL", "NAME", "LAYERS", "KV HEADS", "GRID",
               "POOL/WORKER", "DTYPE");
    for (const RegisteredModel& model : models) {
        fmt::print("{:>6}  {:<32} {:>6} {:>8} {:>10} {:>12}  {}\n", model.id.value, model.spec.name,
                   model.spec.layer_count(), model.spec.kv_heads,
                   fmt::format("{} x {}", model.grid.head_parts, model.grid.sequence_parts),
                   format_bytes(model.pool_bytes_per_worker), name_of(model.spec.dtype));
    }
}

ExitCode run_register(const ClusterCommand& command, const RegisterOptions& options) {
    const auto model = register_model(command, options);
    if (!model) return command.fail(model.error(), model.error() == Errc::already_exists ? "kvgrid model list" : "");
    if (command.output().json) {
        print_json("model.register", as_json(*model));
    } else {
        print_models({*model});
    }
    return ExitCode::done;
}

ExitCode run_list(const ClusterCommand& command) {
    auto client = command.connect();
    if (!client) return command.fail(client.error());
    const auto models = client->models();
    if (!models) return command.fail(models.error());
    if (command.output().json) {
        nlohmann::json list = nlohmann::json::array();
        for (const RegisteredModel& model : *models) list.push_back(as_json(model));
        print_json("model.list", {{"models", std::move(list)}});
    } else {
        print_models(*models);
    }
    return ExitCode::done;
}

}  // namespace

void add_model(CommandLine& line) {
    CLI::App& noun = line.noun("model", "models: the geometry of their attention, and the memory for their pages");
    CLI::App& registering =
        line.command(noun, "register", "register a model, from a spec or a Hugging Face config.json");
    auto options = std::make_shared<RegisterOptions>();
    auto* source = registering.add_option_group("source", "What the model is");
    source->add_option("--spec", options->spec_file, "a model spec in JSON")->type_name("FILE");
    source->add_option("--hugging-face", options->hugging_face_file, "the config.json of a model")->type_name("FILE");
    source->require_option(1);
    registering.add_option("--name", options->name,
                           "its name in the cluster; without it the spec's own, or that of the folder of config.json");
    registering.add_option("--head-parts", options->grid.head_parts,
                           "parts that the KV heads are split into; without it, as many as divide heads and workers");
    registering.add_option("--sequence-parts", options->grid.sequence_parts, "parts that the tokens are split into");
    registering.add_option("--pool", options->pool,
                           "memory for its pages on each worker, like 4GiB; without it, all that no model has yet");
    on_cluster(line, registering, [options](const ClusterCommand& command) { return run_register(command, *options); });
    on_cluster(line, line.command(noun, "list", "the models that are registered"), run_list);
}

}  // namespace kvgrid::cli
