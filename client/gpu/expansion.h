// SPDX-License-Identifier: Apache-2.0
// What is made on the device of a compact batch: images of its series; basis functions, line graph, features and
// offsets of its graphs. The recipe's messages say what, and mean the same as when the daemon makes it; the batch has
// what it is made of:
//
//  - gasf, gadf: of series f32 [B, T, C], and mask u8 [B, T] where lengths differ; scale CHANNEL: needs channel_ranges
//  - rbf: of distance f32 [E], or r f32 [E, 3]
//  - x: of atomic_number [N] and atom_features f32 [Z, F]
//  - ptr, batch: of num_nodes [B]
//  - lg_edge_index, cos: of edge_index [2, E], r f32 [E, 3], and num_nodes, num_edges, num_triplets [B]; with a
//    triplet_cutoff of distance f32 [E], too
//
// Images are bit for bit the daemon's of the same float32 values (a store of float64 values rounds them to make
// `series`). rbf is within 2^-22 and cos within 1e-6 of float64. Triplets stand in order of their first edge, then of
// their second.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/gpu/kernels/program.h"
#include "stoker/batch.h"
#include "stoker/v1/recipe.pb.h"
#include "stoker/v1/service.pb.h"

namespace stoker::gpu {

struct DeviceTensor {
  std::string name;
  v1::DType dtype;
  std::vector<int64_t> shape;  // row-major, contiguous
  void* data;                  // device memory at a multiple of 256 bytes
  uint64_t bytes;
};

struct ExpandOptions {
  // GAF: GASF, GADF or both. Graph: `tensors` names those of the table above. Unset: nothing is made.
  v1::Recipe recipe = {};
  // Least and greatest value of each channel of the data set (TimeSeriesInfo.channel_min, channel_max).
  std::vector<v1::GafRecipe::Range> channel_ranges = {};
  double triplet_cutoff = std::numeric_limits<double>::infinity();  // Å, of the data set
};

// Immutable; any thread.
class Expansion {
 public:
  // InvalidArgument, naming the field or tensor, for what cannot be made, or not of these batches.
  static absl::StatusOr<Expansion> Create(const ExpandOptions& options, const v1::SessionReply::Opened& info);

  // Whether nothing is made.
  bool empty() const { return made_.empty(); }
  // The most that a batch's tensors need.
  uint64_t max_bytes() const { return max_bytes_; }
  // To be in device memory where Plan is told.
  const std::vector<double>& constants() const { return constants_; }

  // Where a batch's parts are on the device.
  struct Places {
    const std::vector<DeviceTensor>& uploaded;
    uint8_t* made;  // max_bytes() of it
    const double* constants;
    uint32_t* errors;  // kErrorWords, each kNoError
  };
  static constexpr int kErrorWords = kMaxKernels;

  // Adds the tensors that are made to `tensors`, and what makes them to `program`. DataLoss when the batch's counts do
  // not fit its tensors, ResourceExhausted when it is larger than was announced.
  absl::Status Plan(const Batch& batch, const Places& places, std::vector<DeviceTensor>* tensors,
                    Program* program) const;

  // What error words say after the program ran: InvalidArgument, or OK.
  absl::Status CheckErrors(const uint32_t* errors) const;

 private:
  class Maker;
  // A tensor that is made.
  struct Made {
    std::string name;
    v1::DType dtype;
  };

  absl::Status CreateGaf(const ExpandOptions& options, const v1::SessionReply::Opened& info);
  absl::Status ReadScale(const ExpandOptions& options, int64_t channels);
  absl::Status CreateGraph(const ExpandOptions& options, const v1::SessionReply::Opened& info);
  absl::Status ReadLineGraph(const ExpandOptions& options);
  absl::Status ReadRbf(const v1::GraphRecipe::Rbf& rbf);
  absl::Status BoundGraph(const v1::SessionReply::Opened& info);
  bool Makes(absl::string_view name) const;
  absl::Status PlanGaf(Maker& maker) const;
  absl::Status PlanGraph(Maker& maker) const;
  absl::Status PlanLineGraph(Maker& maker) const;

  std::vector<v1::SessionReply::TensorSchema> schema_;  // of the batches
  std::vector<Made> made_;
  std::vector<double> constants_;
  uint64_t max_bytes_ = 0;
  // What does not change from batch to batch.
  GafArgs gaf_ = {};
  RbfArgs rbf_ = {};
  LineGraphArgs line_graph_ = {};
  bool graph_ = false;
  Element float_dtype_ = Element::kF32;
};

}  // namespace stoker::gpu
