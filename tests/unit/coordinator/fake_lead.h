#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "comm/rpc/server.h"
#include "comm/wire/messages.h"

namespace kvgrid::coordinator {

// Stands for a grid's lead: answers grid_* requests as told, and remembers them. A new model gets the bytes that were asked for; all
// else succeeds. It holds what it was given in the generation that it was asked in last, and says so when asked for an inventory.
class FakeLead {
  public:
    FakeLead(comm::IoThread& io, const std::string& endpoint)
        : server_(io,
                  {.on_request = [this](comm::Request request,
                                        comm::Responder responder) { take(std::move(request), std::move(responder)); },
                   .on_disconnect = {}}) {
        server_.listen(comm::parse_endpoint(endpoint).value()).value();
    }

    void refuse(comm::MessageType type, Error error) { set(type, {std::move(error), false}); }
    void keep_silent(comm::MessageType type) { set(type, {std::nullopt, true}); }
    void behave(comm::MessageType type) { set(type, {}); }
    // Answers, well, what it was silent about.
    void speak() {
        std::lock_guard lock(mutex_);
        rules_.clear();
        for (auto& [frame, responder] : kept_) answer(frame, responder);
        kept_.clear();
    }

    // What the grid holds, to be changed behind the coordinator's back.
    template <class Change>
    void change_held(Change change) {
        std::lock_guard lock(mutex_);
        change(held_);
    }
    // What it says of its pages; nothing at first.
    template <class Change>
    void change_occupancy(Change change) {
        std::lock_guard lock(mutex_);
        change(occupancy_);
    }
    wire::GridInventoryReply held() {
        std::lock_guard lock(mutex_);
        return held_;
    }

    // The messages of this type that have come, once there are `count` of them or ten seconds have passed.
    template <class M>
    std::vector<M> wait_for(comm::MessageType type, std::size_t count) {
        std::unique_lock lock(mutex_);
        came_.wait_for(lock, std::chrono::seconds(10), [&] { return frames_[type].size() >= count; });
        std::vector<M> messages;
        for (const comm::Frame& frame : frames_[type]) messages.push_back(comm::unpack<M>(frame).value());
        return messages;
    }
    std::vector<std::uint64_t> generations(comm::MessageType type) {
        std::lock_guard lock(mutex_);
        std::vector<std::uint64_t> generations;
        for (const comm::Frame& frame : frames_[type]) generations.push_back(frame.header.generation);
        return generations;
    }

  private:
    struct Rule {
        std::optional<Error> refusal;
        bool silent = false;
    };

    void set(comm::MessageType type, Rule rule) {
        std::lock_guard lock(mutex_);
        rules_[type] = std::move(rule);
    }

    void take(comm::Request request, comm::Responder responder) {
        std::lock_guard lock(mutex_);
        const comm::MessageType type = request.frame.header.type;
        const Rule rule = rules_[type];
        if (rule.silent) {
            kept_.emplace_back(request.frame, std::move(responder));
        } else if (rule.refusal) {
            responder.fail(*rule.refusal);
        } else {
            answer(request.frame, responder);
        }
        frames_[type].push_back(std::move(request.frame));
        came_.notify_all();
    }

    void answer(const comm::Frame& frame, comm::Responder& responder) {
        using enum comm::MessageType;
        if (frame.header.generation > generation_) held_.Clear();
        generation_ = std::max(generation_, frame.header.generation);
        switch (frame.header.type) {
            case grid_inventory:
                return responder.reply(grid_inventory_reply, comm::pack(held_));
            case comm::MessageType::occupancy:
                return responder.reply(occupancy_reply, comm::pack(occupancy_));
            case grid_add_model: {
                const auto model = comm::unpack<wire::GridAddModel>(frame).value();
                *held_.add_models() = model;
                wire::GridAddModelReply reply;
                reply.set_pool_bytes_per_worker(model.pool_bytes_per_worker());
                return responder.reply(grid_add_model_reply, comm::pack(reply));
            }
            case grid_open: {
                const auto open = comm::unpack<wire::GridOpen>(frame).value();
                hold(open.sequence(), open.model());
                break;
            }
            case grid_fork: {
                const auto fork = comm::unpack<wire::GridFork>(frame).value();
                const wire::GridInventoryReply before = held_;
                for (const auto& sequence : before.sequences()) {
                    if (sequence.sequence() == fork.source()) hold(fork.target(), sequence.model());
                }
                break;
            }
            case grid_close: {
                const auto close = comm::unpack<wire::GridClose>(frame).value();
                auto& sequences = *held_.mutable_sequences();
                for (int i = sequences.size() - 1; i >= 0; --i) {
                    if (sequences[i].sequence() == close.sequence()) sequences.DeleteSubrange(i, 1);
                }
                break;
            }
            default:
                break;
        }
        responder.reply(empty, comm::pack(wire::Empty{}));
    }

    void hold(std::uint64_t sequence, std::uint64_t model) {
        auto& held = *held_.add_sequences();
        held.set_sequence(sequence);
        held.set_model(model);
    }

    std::mutex mutex_;
    wire::GridInventoryReply held_;
    wire::OccupancyReply occupancy_;
    std::uint64_t generation_ = 0;
    std::condition_variable came_;
    std::map<comm::MessageType, Rule> rules_;
    std::map<comm::MessageType, std::vector<comm::Frame>> frames_;
    std::vector<std::pair<comm::Frame, comm::Responder>> kept_;
    comm::Server server_;  // last: stops before the rest goes
};

}  // namespace kvgrid::coordinator
