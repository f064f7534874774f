// SPDX-License-Identifier: Apache-2.0
// What a store says of itself, of whatever kind it is: store.json, and the shards that it names.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shared/store/safetensors.h"
#include "stoker/v1/store.pb.h"

namespace stoker::store {

inline constexpr uint32_t kStoreVersion = 1;
inline constexpr char kManifestName[] = "store.json";

// StoreManifest as the JSON of store.json. DataLoss naming `path` when it is malformed, names a shard outside the
// directory or counts other samples than its shards; FailedPrecondition for a version other than kStoreVersion.
absl::StatusOr<v1::StoreManifest> ReadManifest(const std::string& path);
absl::Status WriteManifest(const std::string& path, const v1::StoreManifest& manifest);

// A shard of a store; DataLoss when it is not as long as the manifest says.
absl::StatusOr<SafetensorsFile> OpenShardFile(const std::string& store_dir, const v1::ShardInfo& info);

// DataLoss: "reading <path>: <why>; drop the data set and ingest the source again".
absl::Status Damaged(absl::string_view path, absl::string_view why);

}  // namespace stoker::store
