// SPDX-License-Identifier: Apache-2.0
#include "shared/store/manifest.h"

#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_cat.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker::store {
namespace {

constexpr uint64_t kManifestLimitBytes = 256 << 20;

// A name of a file in the directory itself, so that a manifest cannot lead elsewhere.
bool IsPlainName(absl::string_view name) {
  return !name.empty() && name[0] != '.' && name.find('/') == absl::string_view::npos;
}

absl::Status CheckShards(const std::string& path, const v1::StoreManifest& manifest) {
  uint64_t samples = 0;
  for (const v1::ShardInfo& shard : manifest.shards()) {
    if (!IsPlainName(shard.file())) return Damaged(path, absl::StrCat("shard named '", shard.file(), "'"));
    if (__builtin_add_overflow(samples, shard.samples(), &samples)) return Damaged(path, "samples overflow");
  }
  if (samples == manifest.samples()) return absl::OkStatus();
  return Damaged(path, absl::StrCat("shards have ", samples, " samples, the store ", manifest.samples()));
}

}  // namespace

absl::Status Damaged(absl::string_view path, absl::string_view why) {
  return absl::DataLossError(
      absl::StrCat("reading ", path, ": ", why, "; drop the data set and ingest the source again"));
}

absl::StatusOr<v1::StoreManifest> ReadManifest(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kManifestLimitBytes));
  v1::StoreManifest manifest;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // of a later version: the version tells whether it can be read
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &manifest, options);
  if (!parsed.ok()) return Damaged(path, absl::StrCat("not a store manifest: ", std::string(parsed.message())));
  if (manifest.version() != kStoreVersion) {
    return absl::FailedPreconditionError(absl::StrCat("reading ", path, ": store version ", manifest.version(),
                                                      ", want ", kStoreVersion, "; ingest the source again"));
  }
  STOKER_RETURN_IF_ERROR(CheckShards(path, manifest));
  return manifest;
}

absl::Status WriteManifest(const std::string& path, const v1::StoreManifest& manifest) {
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  const auto printed = google::protobuf::util::MessageToJsonString(manifest, &json, options);
  if (!printed.ok()) {
    return absl::InternalError(absl::StrCat("writing ", path, ": ", std::string(printed.message())));
  }
  return WriteFileAtomically(path, json);
}

absl::StatusOr<SafetensorsFile> OpenShardFile(const std::string& store_dir, const v1::ShardInfo& info) {
  STOKER_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(absl::StrCat(store_dir, "/", info.file())));
  if (file.size_bytes() == info.size_bytes()) return file;
  return Damaged(file.path(), absl::StrCat(file.size_bytes(), " bytes, the manifest says ", info.size_bytes()));
}

}  // namespace stoker::store
