// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "stoker/v1/recipe.pb.h"
#include "stoker/v1/store.pb.h"

namespace stoker::batch {

// The recipe with every default written out for this store, so that recipes that mean the same are the same bytes.
// InvalidArgument names the field ("recipe.gaf.image_size: …") that is unknown, out of range, or does not go with the
// data.
absl::StatusOr<v1::Recipe> CompleteRecipe(const v1::Recipe& recipe, const v1::StoreManifest& manifest);

// 16 hex digits over the message's deterministic serialisation.
std::string Digest(const google::protobuf::Message& message);

}  // namespace stoker::batch
