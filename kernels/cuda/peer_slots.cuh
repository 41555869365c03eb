#pragma once

#include <math_constants.h>

#include "kernels/cuda/flagged_words.cuh"
#include "kernels/cuda/merged_output.cuh"
#include "kernels/cuda/peer_exchange.h"

namespace kvgrid::kernels {

// What the kernels of several ranks do with each other's mailboxes (peer_exchange.h): the exchange, and decodes that join in their tail.

struct PeerHeader {
    std::uint32_t epoch;         // exchanges that are over
    std::uint32_t blocks_done;   // of the one that is under way
    std::uint32_t acknowledged;  // exchanges that the root is through with; written by it as the next one begins
};

__device__ __forceinline__ PeerHeader* header_of(std::byte* mailbox) {
    return reinterpret_cast<PeerHeader*>(mailbox);
}

// ---- across GPUs

__device__ __forceinline__ void push(float4* to, const float4& words) {
    asm volatile("st.relaxed.sys.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(filled(words.x)),
                 "f"(filled(words.y)), "f"(filled(words.z)), "f"(filled(words.w))
                 : "memory");
}
__device__ __forceinline__ void push(float* to, float word) {
    asm volatile("st.relaxed.sys.global.f32 [%0], %1;" ::"l"(to), "f"(filled(word)) : "memory");
}
__device__ __forceinline__ float4 look(const float4* from) {
    float4 words;
    asm volatile("ld.relaxed.sys.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(words.x), "=f"(words.y), "=f"(words.z), "=f"(words.w)
                 : "l"(from)
                 : "memory");
    return words;
}
__device__ __forceinline__ float look(const float* from) {
    float word;
    asm volatile("ld.relaxed.sys.global.f32 %0, [%1];" : "=f"(word) : "l"(from) : "memory");
    return word;
}
__device__ __forceinline__ std::uint32_t acquire(const std::uint32_t* from) {
    std::uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
}
__device__ __forceinline__ void release(std::uint32_t* to, std::uint32_t value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ __forceinline__ std::uint64_t now_ns() {
    std::uint64_t time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

// How long a thread waits in all, from the first time that it had to.
class Patience {
  public:
    __device__ explicit Patience(const PeerExchange& work) : work_(work) {}

    // Calls has_come() until it is true. False: it was not in time; nothing is waited for from then on.
    template <class HasCome>
    __device__ __forceinline__ bool wait(const HasCome& has_come) {
        for (int turn = 1; !has_come(); ++turn) {
            if (is_over_) return false;
            if (turn % kTurnsBetweenLooks == 0) look_at_clock();
            if (turn > kTurnsAwake) __nanosleep(kNapNs);
        }
        return true;
    }
    __device__ bool is_over() const { return is_over_; }

  private:
    static constexpr int kTurnsBetweenLooks = 64;
    // Many threads that ask without a pause take the memory's bandwidth from those that they wait for.
    static constexpr int kTurnsAwake = 4;
    static constexpr unsigned kNapNs = 200;

    // The clock is slow: what comes at once never looks.
    __device__ void look_at_clock() {
        if (began_ == 0) began_ = now_ns();
        is_over_ = now_ns() - began_ > work_.timeout_ns || *work_.abort != 0 || *work_.failed != 0;
        if (is_over_) *work_.failed = 1;
    }

    const PeerExchange& work_;
    std::uint64_t began_ = 0;
    bool is_over_ = false;
};

// Four dims of a row, and the row's log-sum-exp.
struct PeerPiece {
    float4 value;
    float lse;
};
struct PeerPlace {
    std::size_t row;
    int dim;
    bool is_used = true;
};

// What one rank brings to one exchange, in the root's mailbox.
class PeerSlot {
  public:
    __device__ __forceinline__ PeerSlot(const PeerExchange& work, std::uint32_t epoch, int rank, std::size_t row_count)
        : pieces_(work.head_dim / 4) {
        std::byte* const slots = work.mailboxes[work.root] + PeerMailbox::kHeaderBytes;
        const std::size_t index = static_cast<std::size_t>(epoch % 2) * work.rank_count + rank;
        values_ = reinterpret_cast<float4*>(slots + index * PeerMailbox::kSlotBytes);
        lses_ = reinterpret_cast<float*>(values_ + row_count * pieces_);
    }

    __device__ __forceinline__ void bring(const PeerPlace& place, const PeerPiece& piece) const {
        push(values_ + at(place), piece.value);
        push(lses_ + at(place), piece.lse);
    }
    // Waits for all of them at once, and leaves their places empty for the exchange after the next.
    template <int kCount>
    __device__ __forceinline__ bool take(const PeerPlace (&places)[kCount], PeerPiece (&pieces)[kCount],
                                         Patience& patience) const {
        bool has_come[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i) has_come[i] = !places[i].is_used;
        const bool have_come = patience.wait([&] {
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
                if (!has_come[i]) pieces[i] = {look(values_ + at(places[i])), look(lses_ + at(places[i]))};
            }
            bool have_come = true;
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
                has_come[i] = has_come[i] || (is_whole(pieces[i].value) && !is_empty(pieces[i].lse));
                have_come = have_come && has_come[i];
            }
            return have_come;
        });
        if (!have_come) return false;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            if (!places[i].is_used) continue;
            empty_words(values_ + at(places[i]));
            lses_[at(places[i])] = __uint_as_float(kEmptyWord);
        }
        return true;
    }

  private:
    __device__ __forceinline__ std::size_t at(const PeerPlace& place) const {
        return place.row * pieces_ + place.dim / 4;
    }

    std::size_t pieces_;  // of a row
    float4* values_;
    float* lses_;
};

// Sums of pieces weighted by exp(lse - origin). A piece that saw nothing may hold anything.
class PeerMerged {
  public:
    __device__ __forceinline__ void add(const PeerPiece& piece) {
        if (piece.lse == -INFINITY) return;
        const float origin = fmaxf(origin_, piece.lse);
        const float before = weight_ == 0 ? 0 : expf(origin_ - origin), added = expf(piece.lse - origin);
        value_ = {before * value_.x + added * piece.value.x, before * value_.y + added * piece.value.y,
                  before * value_.z + added * piece.value.z, before * value_.w + added * piece.value.w};
        weight_ = before * weight_ + added;
        origin_ = origin;
    }
    __device__ __forceinline__ float4 value() const {
        const float inverse = weight_ == 0 ? 0 : 1 / weight_;
        return {inverse * value_.x, inverse * value_.y, inverse * value_.z, inverse * value_.w};
    }

  private:
    float4 value_ = {0, 0, 0, 0};
    float origin_ = -INFINITY, weight_ = 0;
};

__device__ __forceinline__ std::size_t rows_of_part(const PeerExchange& work, int head_part) {
    const int heads = work.first_heads[head_part + 1] - work.first_heads[head_part];
    return static_cast<std::size_t>(work.token_count) * heads;
}

// Whether the root has emptied what this rank is about to fill.
__device__ __forceinline__ bool wait_for_acknowledgement(const PeerExchange& work, std::uint32_t epoch,
                                                         Patience& patience) {
    const std::uint32_t* const acknowledged = &header_of(work.mailboxes[work.rank])->acknowledged;
    return patience.wait([&] { return static_cast<std::int32_t>(acquire(acknowledged) + 1 - epoch) >= 0; });
}

// At the root: pieces of a head part's rows, of all its ranks, into the outcome. own(i) is called for the root's.
template <int kCount, class Own>
__device__ __forceinline__ void merge_pieces(const PeerExchange& work, std::uint32_t epoch, int head_part,
                                             const PeerPlace (&places)[kCount], Patience& patience, const Own& own) {
    PeerMerged merged[kCount];
    const int end = (head_part + 1) * work.sequence_parts;
    for (int rank = head_part * work.sequence_parts; rank < end; ++rank) {
        PeerPiece pieces[kCount] = {};
        if (rank == work.root) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
                if (places[i].is_used) pieces[i] = own(i);
            }
        } else if (!PeerSlot(work, epoch, rank, rows_of_part(work, head_part)).take(places, pieces, patience)) {
            return;
        }
#pragma unroll
        for (int i = 0; i < kCount; ++i) merged[i].add(pieces[i]);
    }
    const int first = work.first_heads[head_part], heads = work.first_heads[head_part + 1] - first;
    const int all = work.first_heads[work.rank_count / work.sequence_parts];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        const auto [row, dim, is_used] = places[i];
        if (!is_used) continue;
        const std::size_t whole_row = heads == all ? row : row / heads * all + first + row % heads;
        store_merged(work.merged, work.dtype, whole_row * work.head_dim + dim, merged[i].value());
    }
}

// At the root, by one thread of the kernel and at its beginning: the exchanges before this one are over, and what they brought is emptied. All of that
// kernel has ended, so that nothing has to be fenced.
__device__ __forceinline__ void acknowledge(const PeerExchange& work, std::uint32_t epoch) {
    for (int rank = 0; rank < work.rank_count; ++rank) {
        if (rank != work.root) release(&header_of(work.mailboxes[rank])->acknowledged, epoch);
    }
}

// By all threads of each block of the kernel, at its end: the block that ends last ends the exchange.
__device__ __forceinline__ void end_exchange(const PeerExchange& work) {
    __syncthreads();
    if (threadIdx.x != 0) return;
    PeerHeader* const header = header_of(work.mailboxes[work.rank]);
    if (atomicAdd(&header->blocks_done, 1) + 1 < gridDim.x) return;
    header->blocks_done = 0;
    header->epoch = header->epoch + 1;
}

}  // namespace kvgrid::kernels
