// SPDX-License-Identifier: Apache-2.0
// Pictures of crystal structures.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "client/ctl/picture.h"
#include "stoker/batch.h"

namespace stoker::ctl {

// A sheet of a batch of graphs, four structures a row: each with its cell, its atoms, coloured by element, and the
// edges to the nearest of their neighbours; looked at from the same side, each as large as its place allows.
// InvalidArgument when the batch has no samples or lacks a tensor that a picture needs: atomic_number, frac_coords,
// lattice, ptr, edge_index and r, in f32.
absl::StatusOr<Picture> CrystalSheet(const Batch& batch, int64_t samples);

}  // namespace stoker::ctl
