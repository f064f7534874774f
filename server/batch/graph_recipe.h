// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "stoker/v1/recipe.pb.h"
#include "stoker/v1/store.pb.h"

namespace stoker::batch {

// CompleteRecipe for a GraphRecipe over a store of crystals: tensors named in the order of a batch, every default
// written out. InvalidArgument names the field.
absl::StatusOr<v1::Recipe> CompleteGraph(const v1::Recipe& recipe, const v1::StoreManifest& manifest);

}  // namespace stoker::batch
