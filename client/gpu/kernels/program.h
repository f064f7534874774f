// SPDX-License-Identifier: Apache-2.0
// What one launch does: up to kMaxKernels kernels with their arguments, each on blocks of its own. So a batch is
// expanded by one launch, however many tensors it has. Plain values that are copied to the device as they are; pointers
// are the device's. Shapes are as in proto/stoker/v1/recipe.proto. Output tensors begin at multiples of 256 bytes.
#pragma once

#include "client/gpu/kernels/elements.h"

namespace stoker::gpu {

// Windows of a series to Gramian angular fields, with the arithmetic of server/transforms/gaf.h: equal bit for bit to
// what it makes of the same float32 values.
struct GafArgs {
  enum Scale : uint8_t { kWindow, kRange, kNone };  // kRange: FIXED, and CHANNEL

  const float* series;   // [samples, points, channels]
  const uint8_t* mask;   // [samples, points], ones and then zeros: the length of each sample; null: all have `points`
  const double* ranges;  // kRange: [channels, 2] low and high, or [1, 2] for all when one_range
  void* gasf;            // [samples, channels, size, size], null: not asked for
  void* gadf;
  int64_t samples;
  int64_t points;
  int64_t channels;
  int64_t size;       // <= points, <= 4096
  double target_low;  // the sample range
  double target_high;
  Scale scale;
  bool overlapping;
  bool one_range;
  Element dtype;    // kF32, kF16, kBf16, kU8, kU16
  uint32_t slices;  // blocks that share the pixels of a window
};

// distance to rbf: out[e][k] = exp(-gamma (d_e - (low + k step))^2). Within 2^-22 of float64 before it is rounded to
// dtype.
struct RbfArgs {
  const float* distance;  // [edges]; null: the length of r
  const float* r;         // [edges, 3]
  void* rbf;              // [edges, bins]
  int64_t edges;
  int64_t bins;
  double low;
  double step;
  double gamma;
  Element dtype;  // kF32, kF16, kBf16
};

// Rows of a table by number: x[n] = table[row[n]]. A row that is not there gives zeros and sets the error to n.
struct FeatureArgs {
  const void* rows;    // [nodes] kI64 or kI32
  const float* table;  // [table_rows, features]
  void* x;             // [nodes, features]
  int64_t nodes;
  int64_t features;
  int64_t table_rows;
  Element index_dtype;
  Element dtype;  // kF32, kF16, kBf16
};

// Where the graphs of a batch begin: ptr[b] and batch[n]; and edges that are numbered within their graphs to edges that
// are numbered within the batch. Any of the outputs may be null.
struct BatchArgs {
  const void* num_nodes;    // [graphs]
  const void* num_edges;    // [graphs]; for edge_index only
  const void* local_edges;  // [2, edges]
  void* ptr;                // [graphs + 1]
  void* batch;              // [nodes]
  void* edge_index;         // [2, edges]
  int64_t graphs;
  int64_t nodes;
  int64_t edges;
  Element index_dtype;  // of all of them
};

// Line graph of a batch: pairs (a, b) of edges, in order of a and then of b, and the cosine between them. In float32:
// within 1e-6 of float64.
struct LineGraphArgs {
  enum Mode : uint8_t { kDgl, kTorch, kM3gnet };  // as GraphRecipe.LineGraph

  const void* edge_index;  // [2, edges], sorted by source, then distance
  const float* r;          // [edges, 3]
  const float* distance;   // [edges]; null: all take part
  const void* num_nodes;   // [graphs]
  const void* num_edges;
  const void* num_triplets;
  void* lg_edge_index;  // [2, triplets], null: not asked for
  void* cosines;        // [triplets], null: not asked for
  int64_t graphs;
  int64_t edges;
  int64_t triplets;
  float cutoff;  // only edges up to this distance take part
  Mode mode;
  Element index_dtype;  // of all indices
  Element dtype;        // of cosines
  uint32_t slices;      // blocks that share the triplets of a graph
};

struct KernelCall {
  enum Kind : uint8_t { kGaf, kRbf, kFeatures, kBatch, kLineGraph };
  Kind kind;
  uint32_t blocks;
  uint32_t shared_bytes;
  // null: nobody asks. The least number of a sample (or node) that could not be expanded; kNoError as long as there is
  // none.
  uint32_t* error;
  union {
    GafArgs gaf;
    RbfArgs rbf;
    FeatureArgs features;
    BatchArgs batch;
    LineGraphArgs line_graph;
  };
};

inline constexpr uint32_t kNoError = 0xffffffffu;
inline constexpr int kMaxKernels = 8;

struct Program {
  int count = 0;
  KernelCall calls[kMaxKernels];
};

// Calls with the number of blocks and the shared memory that they need. REQUIRES: sizes are not negative, those of
// outputs are what the inputs say.
KernelCall CallOf(const GafArgs& args, uint32_t* error);
KernelCall CallOf(const RbfArgs& args);
KernelCall CallOf(const FeatureArgs& args, uint32_t* error);
KernelCall CallOf(const BatchArgs& args);
KernelCall CallOf(const LineGraphArgs& args, uint32_t* error);

}  // namespace stoker::gpu
