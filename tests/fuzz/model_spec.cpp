// Text as a model spec in our JSON, as a Hugging Face config, and as LCKV notation. What is taken obeys every rule of ModelSpec, and is
// written and read back as the same.
//
//   input  u8 which form | the text (LCKV: u16 layers, then the text)

#include "core/model_spec.h"
#include "tests/fuzz/fuzz_target.h"

namespace kvgrid {
namespace {

using fuzz::require;

void check(const Result<ModelSpec>& spec) {
    if (!spec) {
        require(!spec.error().message.empty() && !(spec.error() == Errc::internal), "a refusal says why");
        return;
    }
    require(validated(*spec).ok(), "a spec that was taken is valid");
    const auto again = parse_model_spec(to_json(*spec));
    require(again && *again == *spec, "a spec is written and read back as the same");
    require(spec->token_bytes() > 0 && spec->page_bytes() > 0, "a spec has a size");
}

void check_layer_types(fuzz::Input input) {
    const int layers = input.two_bytes();
    const auto shared = parse_layer_types(input.text(), layers);
    if (!shared) return;
    require(static_cast<int>(shared->size()) == layers, "there is an item for each layer");
    for (const SharedLayer& layer : *shared) {
        require(layer.kv_layer >= 0 && layer.kv_layer < layers, "a layer reads one of the layers");
        require((*shared)[layer.kv_layer].kv_layer == layer.kv_layer, "there are no chains");
    }
}

}  // namespace
}  // namespace kvgrid

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    kvgrid::fuzz::Input input(data, size);
    switch (input.byte()) {
        case 0:
            kvgrid::check(kvgrid::parse_model_spec(input.text()));
            return 0;
        case 1:
            kvgrid::check(kvgrid::parse_hugging_face_config(input.text(), "fuzz"));
            return 0;
        case 2:
            kvgrid::check_layer_types(input);
            return 0;
        default:
            return -1;
    }
}
