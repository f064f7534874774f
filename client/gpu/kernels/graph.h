// SPDX-License-Identifier: Apache-2.0
// Crystal graphs: basis functions of distances, rows of a feature table, offsets of a batch's graphs, and line graphs.
#pragma once

#include "client/gpu/kernels/program.h"

namespace stoker::gpu {

STOKER_DEVICE int64_t LoadIndex(const void* indices, Element dtype, int64_t i) {
  return dtype == Element::kI32 ? static_cast<const int32_t*>(indices)[i] : static_cast<const int64_t*>(indices)[i];
}
STOKER_DEVICE void StoreIndex(void* indices, Element dtype, int64_t i, int64_t value) {
  if (dtype == Element::kI32)
    static_cast<int32_t*>(indices)[i] = static_cast<int32_t>(value);
  else
    static_cast<int64_t*>(indices)[i] = value;
}

// Row and column of elements of a matrix that are asked for one after the other, mostly without a division.
struct Cursor {
  int64_t columns;
  int64_t next = -1;
  int64_t row = 0;
  int64_t column = 0;

  STOKER_DEVICE bool Seek(int64_t element) {  // whether the row is another one than before
    const bool here = element == next;
    next = element + 1;
    if (here && ++column < columns) return false;
    if (here) {
      column = 0;
      ++row;
    } else if (((element | columns) >> 32) == 0) {
      row = static_cast<uint32_t>(element) / static_cast<uint32_t>(columns);
      column = static_cast<uint32_t>(element) % static_cast<uint32_t>(columns);
    } else {
      row = element / columns;
      column = element % columns;
    }
    return true;
  }
};

// The elements of a matrix of floats, shared out over all threads of all blocks: value(cursor, whether the row is new).
template <class Format, typename Value>
STOKER_DEVICE void WriteMatrix(void* out, int64_t rows, int64_t columns, const Block& block, const Value& value) {
  Cursor cursor{columns};
  WriteElements(static_cast<typename Format::Type*>(out), 0, rows * columns,
                int64_t{block.index} * kBlockThreads + block.thread, int64_t{block.count} * kBlockThreads,
                [&](int64_t element) {
                  const bool new_row = cursor.Seek(element);
                  return Format::Pack(value(cursor, new_row));
                });
}

struct RbfKernel {
  static STOKER_DEVICE uint32_t Phases(const RbfArgs&, const Block&) { return 1; }
  static STOKER_DEVICE void Run(uint32_t, const RbfArgs& args, const Block& block, uint32_t*) {
    if (args.dtype == Element::kF16) return Write<F16>(args, block);
    if (args.dtype == Element::kBf16) return Write<Bf16>(args, block);
    Write<F32>(args, block);
  }

 private:
  // The difference in float64, so that the exponent has only the rounding of float32 in it.
  template <class Format>
  static STOKER_DEVICE void Write(const RbfArgs& args, const Block& block) {
    double distance = 0.0;
    WriteMatrix<Format>(args.rbf, args.edges, args.bins, block, [&](const Cursor& at, bool new_row) {
      if (new_row) distance = Distance(args, at.row);
      const double from_centre = distance - (args.low + static_cast<double>(at.column) * args.step);
      return expf(static_cast<float>(-args.gamma * (from_centre * from_centre)));
    });
  }
  static STOKER_DEVICE double Distance(const RbfArgs& args, int64_t edge) {
    if (args.distance != nullptr) return args.distance[edge];
    const double x = args.r[3 * edge], y = args.r[3 * edge + 1], z = args.r[3 * edge + 2];
    return static_cast<float>(sqrt(x * x + y * y + z * z));  // as `distance` holds it
  }
};

struct FeatureKernel {
  static STOKER_DEVICE uint32_t Phases(const FeatureArgs&, const Block&) { return 1; }
  static STOKER_DEVICE void Run(uint32_t, const FeatureArgs& args, const Block& block, uint32_t* error) {
    if (args.dtype == Element::kF16) return Write<F16>(args, block, error);
    if (args.dtype == Element::kBf16) return Write<Bf16>(args, block, error);
    Write<F32>(args, block, error);
  }

 private:
  template <class Format>
  static STOKER_DEVICE void Write(const FeatureArgs& args, const Block& block, uint32_t* error) {
    const float* row = nullptr;
    WriteMatrix<Format>(args.x, args.nodes, args.features, block, [&](const Cursor& at, bool new_row) {
      if (new_row) {
        const int64_t number = LoadIndex(args.rows, args.index_dtype, at.row);
        const bool there = number >= 0 && number < args.table_rows;
        if (!there && error != nullptr) AtomicMin(error, static_cast<uint32_t>(at.row));
        row = there ? args.table + number * args.features : nullptr;
      }
      return row != nullptr ? row[at.column] : 0.0f;
    });
  }
};

// Sums of up to three arrays over the graphs before one: the places of its nodes, edges and triplets in the batch. Two
// phases of the block, after which At() may be called in every later phase.
struct GraphSums {
  static constexpr uint32_t kArrays = 3;
  static constexpr uint32_t kGroup = 16;
  static constexpr uint32_t kSharedBytes = sizeof(int64_t) * kArrays * kBlockThreads;

  int64_t* partial;             // [kArrays, kBlockThreads], shared
  const void* counts[kArrays];  // each may be null: 0
  Element dtype;

  STOKER_DEVICE void Add(int64_t graph, uint32_t thread) const {
    for (uint32_t a = 0; a < kArrays; ++a) {
      int64_t sum = 0;
      for (int64_t g = thread; counts[a] != nullptr && g < graph; g += kBlockThreads)
        sum += LoadIndex(counts[a], dtype, g);
      partial[a * kBlockThreads + thread] = sum;
    }
  }
  STOKER_DEVICE void Gather(uint32_t thread) const {
    if (thread >= kArrays * kBlockThreads / kGroup) return;
    int64_t* const group = partial + int64_t{thread} * kGroup;
    int64_t sum = 0;
    for (uint32_t k = 0; k < kGroup; ++k) sum += group[k];
    group[0] = sum;
  }
  STOKER_DEVICE int64_t At(uint32_t array) const {
    int64_t sum = 0;
    for (uint32_t k = 0; k < kBlockThreads; k += kGroup) sum += partial[array * kBlockThreads + k];
    return sum;
  }
};

// One block a graph; one where there is none, for ptr[0].
struct BatchKernel {
  static STOKER_DEVICE uint32_t Phases(const BatchArgs&, const Block&) { return 3; }
  static STOKER_DEVICE void Run(uint32_t phase, const BatchArgs& args, const Block& block, uint32_t*) {
    const GraphSums sums = {
        reinterpret_cast<int64_t*>(block.shared), {args.num_nodes, args.num_edges, nullptr}, args.index_dtype};
    if (phase == 0) return sums.Add(block.index, block.thread);
    if (phase == 1) return sums.Gather(block.thread);
    const Element dtype = args.index_dtype;
    if (args.graphs == 0) {
      if (args.ptr != nullptr && block.thread == 0) StoreIndex(args.ptr, dtype, 0, 0);
      return;
    }
    const int64_t graph = block.index;
    const int64_t node = sums.At(0), node_end = node + LoadIndex(args.num_nodes, dtype, graph);
    if (args.ptr != nullptr && block.thread == 0) {
      StoreIndex(args.ptr, dtype, graph, node);
      if (graph + 1 == args.graphs) StoreIndex(args.ptr, dtype, args.graphs, node_end);
    }
    for (int64_t n = node + block.thread; args.batch != nullptr && n < node_end && n < args.nodes; n += kBlockThreads) {
      StoreIndex(args.batch, dtype, n, graph);
    }
    if (args.edge_index == nullptr) return;
    const int64_t edge = sums.At(1), edge_end = edge + LoadIndex(args.num_edges, dtype, graph);
    for (int64_t e = edge + block.thread; e < edge_end && e < args.edges; e += kBlockThreads) {
      for (const int64_t at : {e, e + args.edges}) {
        StoreIndex(args.edge_index, dtype, at, node + LoadIndex(args.local_edges, dtype, at));
      }
    }
  }
};

// One block a graph, or several that share its triplets. Edges are taken kBlockThreads at a time, a "strip": each
// thread counts the partners of its edge, the counts are summed up, and then all threads write the strip's triplets in
// order, so that neighbours write side by side.
struct LineGraphKernel {
  static constexpr uint32_t kGroup = 16;
  static constexpr uint32_t kGroups = kBlockThreads / kGroup;

  struct Shared {
    int64_t sums[GraphSums::kArrays * kBlockThreads];
    int64_t written;                // triplets of the strips before
    uint32_t group[kGroups];        // triplets of each group of edges
    uint32_t count[kBlockThreads];  // of each edge; after Sum: of the edges before it in its group
    int32_t row[kBlockThreads];     // its first partner, from the graph's first edge
    uint32_t skip[kBlockThreads];   // its partners from this one on are one edge further: the edge itself is left out
  };

  static STOKER_DEVICE uint32_t Phases(const LineGraphArgs& args, const Block& block) {
    const int64_t edges = LoadIndex(args.num_edges, args.index_dtype, block.index / args.slices);
    return edges <= 0 ? 0 : 2 + 3 * static_cast<uint32_t>((edges + kBlockThreads - 1) / kBlockThreads);
  }

  static STOKER_DEVICE void Run(uint32_t phase, const LineGraphArgs& args, const Block& block, uint32_t* error) {
    Shared& shared = *reinterpret_cast<Shared*>(block.shared);
    const int64_t graph = block.index / args.slices;
    const GraphSums sums = {shared.sums, {args.num_nodes, args.num_edges, args.num_triplets}, args.index_dtype};
    if (phase == 0) return sums.Add(graph, block.thread);
    if (phase == 1) return sums.Gather(block.thread);
    Graph g;
    g.number = graph;
    g.edge = sums.At(1);
    g.edge_end = Least(g.edge + LoadIndex(args.num_edges, args.index_dtype, graph), args.edges);
    g.triplet = sums.At(2);
    g.triplet_end = Least(g.triplet + LoadIndex(args.num_triplets, args.index_dtype, graph), args.triplets);
    const uint32_t strip = (phase - 2) / 3;
    switch ((phase - 2) % 3) {
      case 0:
        return Count(args, g, strip, block.thread, shared);
      case 1:
        return Sum(block.thread, shared);
      default:
        return Write(args, g, strip, block, shared, error);
    }
  }

 private:
  struct Graph {
    int64_t number;
    int64_t edge, edge_end;  // of the batch
    int64_t triplet, triplet_end;
  };
  static STOKER_DEVICE int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

  static STOKER_DEVICE float Dot(const float* a, const float* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
  static STOKER_DEVICE bool Within(const LineGraphArgs& args, int64_t edge) {
    return args.distance == nullptr || args.distance[edge] <= args.cutoff;
  }
  static STOKER_DEVICE int64_t Source(const LineGraphArgs& args, int64_t edge) {
    return LoadIndex(args.edge_index, args.index_dtype, edge);
  }

  static STOKER_DEVICE void Count(const LineGraphArgs& args, const Graph& g, uint32_t strip, uint32_t thread,
                                  Shared& shared) {
    if (thread == 0) {
      int64_t written = 0;
      for (uint32_t k = 0; strip > 0 && k < kGroups; ++k) written += shared.group[k];
      shared.written = strip > 0 ? shared.written + written : 0;
    }
    const int64_t a = g.edge + int64_t{strip} * kBlockThreads + thread;
    shared.count[thread] = 0;
    if (a >= g.edge_end || !Within(args, a)) return;
    const int64_t source = Source(args, a);
    const int64_t at =
        args.mode == LineGraphArgs::kM3gnet ? source : LoadIndex(args.edge_index, args.index_dtype, args.edges + a);
    const int64_t row = FirstOf(args, g, at, false), row_end = FirstOf(args, g, at, true);
    const bool leave_out = source == at && args.mode != LineGraphArgs::kTorch && a >= row && a < row_end;
    const auto partners = static_cast<uint32_t>(row_end > row ? row_end - row : 0);
    shared.count[thread] = partners - (leave_out ? 1 : 0);
    shared.row[thread] = static_cast<int32_t>(row - g.edge);
    shared.skip[thread] = leave_out ? static_cast<uint32_t>(a - row) : partners;
  }

  // The first edge from `node` on, or with `beyond` the first after those from `node` that are within the cutoff.
  static STOKER_DEVICE int64_t FirstOf(const LineGraphArgs& args, const Graph& g, int64_t node, bool beyond) {
    int64_t low = g.edge, high = g.edge_end;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      const int64_t source = Source(args, middle);
      if (source < node || (beyond && source == node && Within(args, middle)))
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  static STOKER_DEVICE void Sum(uint32_t thread, Shared& shared) {
    if (thread >= kGroups) return;
    uint32_t sum = 0;
    for (uint32_t k = thread * kGroup; k < (thread + 1) * kGroup; ++k) {
      const uint32_t count = shared.count[k];
      shared.count[k] = sum;
      sum += count;
    }
    shared.group[thread] = sum;
  }

  static STOKER_DEVICE void Write(const LineGraphArgs& args, const Graph& g, uint32_t strip, const Block& block,
                                  const Shared& shared, uint32_t* error) {
    uint32_t total = 0;
    for (uint32_t k = 0; k < kGroups; ++k) total += shared.group[k];
    const int64_t first = g.triplet + shared.written, strip_edge = g.edge + int64_t{strip} * kBlockThreads;
    const bool last = strip_edge + kBlockThreads >= g.edge_end;
    const bool fits = first + total <= g.triplet_end && (!last || first + total == g.triplet_end);
    if (!fits && block.thread == 0 && error != nullptr) AtomicMin(error, static_cast<uint32_t>(g.number));
    if (!fits || strip % args.slices != block.index % args.slices) return;
    for (uint32_t t = block.thread; t < total; t += kBlockThreads) {
      uint32_t group = 0, k = t;
      while (k >= shared.group[group]) k -= shared.group[group++];
      uint32_t i = group * kGroup;
      for (uint32_t half = kGroup / 2; half > 0; half /= 2) {
        if (shared.count[i + half] <= k) i += half;
      }
      k -= shared.count[i];
      Put(args, first + t, strip_edge + i, g.edge + shared.row[i] + k + (k >= shared.skip[i] ? 1 : 0));
    }
  }

  static STOKER_DEVICE void Put(const LineGraphArgs& args, int64_t at, int64_t a, int64_t b) {
    if (args.lg_edge_index != nullptr) {
      StoreIndex(args.lg_edge_index, args.index_dtype, at, a);
      StoreIndex(args.lg_edge_index, args.index_dtype, args.triplets + at, b);
    }
    if (args.cosines == nullptr) return;
    const float *ra = args.r + 3 * a, *rb = args.r + 3 * b;
    const float dot = args.mode == LineGraphArgs::kM3gnet ? Dot(ra, rb) : -Dot(ra, rb);
    const float cosine = Clip(dot / (sqrtf(Dot(ra, ra)) * sqrtf(Dot(rb, rb))));
    if (args.dtype == Element::kF16)
      static_cast<uint16_t*>(args.cosines)[at] = ToHalf(cosine);
    else if (args.dtype == Element::kBf16)
      static_cast<uint16_t*>(args.cosines)[at] = ToBfloat(cosine);
    else
      static_cast<float*>(args.cosines)[at] = cosine;
  }
};

}  // namespace stoker::gpu
