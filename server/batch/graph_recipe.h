// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "stoker/v1/recipe.pb.h"
#include "stoker/v1/store.pb.h"

namespace stoker::batch {

// CompleteRecipe for a GraphRecipe over a store of crystals: tensors named in the order of a batch, every default
// written out. InvalidArgument names the field.
absl::StatusOr<v1::Recipe> CompleteGraph(const v1::Recipe& recipe, const v1::StoreManifest& manifest);

// Whether batches of graphs may have a tensor of this name, so that no sidecar can.
bool IsGraphTensor(absl::string_view name);

}  // namespace stoker::batch
