#pragma once

#include <atomic>
#include <memory>

#include "client/client_impl.h"

namespace kvgrid {

struct Sequence::Impl {
    Impl(std::shared_ptr<Client::Impl> of, SequenceId is, ModelId from, std::shared_ptr<const ModelSpec> geometry)
        : client(std::move(of)), id(is), model(from), spec(std::move(geometry)) {}
    ~Impl();  // closes, if it owns

    Status close(Deadline deadline);

    const std::shared_ptr<Client::Impl> client;
    const SequenceId id;
    const ModelId model;
    const std::shared_ptr<const ModelSpec> spec;
    std::atomic<bool> owns{true};  // until close or release
};

}  // namespace kvgrid
