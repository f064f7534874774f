// SPDX-License-Identifier: Apache-2.0
// The line graph of one structure: pairs of edges that share an atom, and their angles. Nothing is searched: the
// partners of an edge are a run of neighbouring edges, for edges are sorted by source, and those within the triplet
// cutoff are the first of each source. O(triplets).
//
//   line_graph.Assign(v1::GraphRecipe::DGL, bucket, destination, triplet_degree, r);
//   line_graph.WriteIndex(v1::DTYPE_I64, edge_offset, first, second);   // line_graph.triplets() elements each
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

  // The numbers of the edges of each pair, plus `offset`; by the first, then by the second. `dtype`: I64 or I32.
  // Nothing is written beyond triplets() elements. Call Flush before another thread is told.
  void WriteIndex(v1::DType dtype, int64_t offset, void* first, void* second);

  // Cosine of each pair, clamped to [-1, 1]: the float32 product of float32 directions, then rounded to `dtype` (F32,
  // F16, BF16). An edge of no length has cosine 0. Nothing is written beyond.
  void WriteCosines(v1::DType dtype, void* out);

  // Makes all stores past the caches visible to whoever sees a later store of this thread (sfence on x86).
  static void Flush();

 private:
  const CrystalKernels* kernels_;
  Buffer<PartnerRun> runs_;
  size_t run_count_ = 0;
  int64_t triplets_ = 0;
  float sign_ = 1;
  absl::Span<const float> r_;
  Buffer<float> x_, y_, z_;  // directions
  Buffer<float> cosines_;    // until they are rounded
};

}  // namespace stoker::transforms
