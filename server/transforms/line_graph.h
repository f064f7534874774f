// SPDX-License-Identifier: Apache-2.0
// The line graph of one structure: pairs of edges that share an atom, and their angles. Nothing is searched: the
// partners of an edge are a run of neighbouring edges, for edges are sorted by source, and those within the triplet
// cutoff are the first of each source. O(triplets).
//
//   line_graph.Assign(v1::GraphRecipe::DGL, bucket, destination, triplet_degree, r);
//   line_graph.Write(v1::DTYPE_I64, edge_offset, v1::DTYPE_F32, first, second, cosines);
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "server/transforms/buffer.h"
#include "server/transforms/crystal_kernels.h"
#include "stoker/v1/recipe.pb.h"

namespace stoker::transforms {

// Reused for many structures. One thread at a time.
class LineGraph {
 public:
  // All kernels give the same bytes.
  explicit LineGraph(const CrystalKernels* kernels = FindCrystalKernels(""));

  // Edges [bucket[i], bucket[i + 1]) are those of atom i, of which the first degree[i] have triplets. r [E, 3]. Spans
  // are read until the next Assign. REQUIRES: destinations are atoms, 0 <= degree[i] <= edges of i, a kind with a line
  // graph
  void Assign(v1::GraphRecipe::LineGraph kind, absl::Span<const int64_t> bucket, absl::Span<const int32_t> destination,
              absl::Span<const int32_t> degree, absl::Span<const float> r);

  int64_t triplets() const { return triplets_; }

  // Of each pair, by the first edge, then by the second: the numbers of both, plus `offset`, and the cosine, clamped to
  // [-1, 1]: the float32 product of float32 directions, then rounded. An edge of no length has cosine 0. `index`: I64
  // or I32; `real`: F32, F16 or BF16. Null for what is not wanted. Nothing is written beyond triplets() elements. Call
  // Flush before another thread is told.
  void Write(v1::DType index, int64_t offset, v1::DType real, void* first, void* second, void* cosines);

  // Makes all stores past the caches visible to whoever sees a later store of this thread (sfence on x86).
  static void Flush();

 private:
  int64_t TripletsOf(size_t atom) const;  // whose first edge is one of the atom's

  const CrystalKernels* kernels_;
  Partners partners_ = {};
  int64_t triplets_ = 0;
  float sign_ = 1;
  absl::Span<const float> r_;
  Buffer<float> x_, y_, z_;  // directions
};

}  // namespace stoker::transforms
