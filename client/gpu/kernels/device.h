// SPDX-License-Identifier: Apache-2.0
// What lets one source be built by nvcc for a device and by the host's compiler for its threads. The only place that
// asks which of the two it is.
//
// A kernel is a struct with
//   Phases(args, block)          how many phases the block runs; the same for all its threads
//   Run(phase, args, block)      one thread's part of a phase
// Between two phases all threads of the block wait for each other, and what they share lies in `block.shared`: nothing
// else outlives a phase. So the host can run a block as two loops, over phases and over threads, and a barrier is where
// the inner loop ends.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define STOKER_DEVICE __host__ __device__ __forceinline__
#else
#define STOKER_DEVICE inline
#endif

namespace stoker::gpu {

inline constexpr uint32_t kBlockThreads = 256;

struct Block {
  uint32_t index;  // of `count` blocks of the same kernel
  uint32_t count;
  uint32_t thread;  // of kBlockThreads
  unsigned char* shared;
};

// 16 bytes: what a thread writes at once, so that a warp writes whole lines.
struct alignas(16) Chunk {
  uint32_t words[4];
};
inline constexpr uint32_t kChunkBytes = sizeof(Chunk);

// REQUIRES: both are at multiples of kChunkBytes.
STOKER_DEVICE void StoreChunk(void* to, const void* from) {
#ifdef __CUDA_ARCH__
  *static_cast<Chunk*>(to) = *static_cast<const Chunk*>(from);
#else
  memcpy(to, from, sizeof(Chunk));
#endif
}

// *word = min(*word, value), whoever else does the same in this launch.
STOKER_DEVICE void AtomicMin(uint32_t* word, uint32_t value) {
#ifdef __CUDA_ARCH__
  atomicMin(word, value);
#else
  uint32_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (value < seen && !__atomic_compare_exchange_n(word, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
#endif
}

template <typename To, typename From>
STOKER_DEVICE To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace stoker::gpu
