// SPDX-License-Identifier: Apache-2.0
// The data sets that the cache directory holds: names and the stores they stand for. Owned by one thread, not
// synchronised. Several daemons may share a cache directory: what is on disk is changed under a file lock, and each
// sees what others did when it loads.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "stoker/v1/service.pb.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

class DatasetCatalog {
 public:
  struct Entry {
    v1::Dataset dataset;
    v1::StoreManifest manifest;
    std::string store_dir;
  };

  // Reads all records and manifests. A record that is broken or whose store is gone is left out and named, with the
  // reason and the remedy, in problems(). Staging directories that nobody holds and nobody touched for `staging_age`
  // are removed. A cache directory that is not there is an empty one. PermissionDenied.
  static absl::StatusOr<DatasetCatalog> Load(const std::string& cache_dir,
                                             absl::Duration staging_age = absl::Hours(24 * 7));

  const std::vector<std::string>& problems() const { return problems_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }  // by name
  const Entry* Find(absl::string_view name) const;                          // nullptr when there is none

  // After an ingest, whose record is on disk already: in memory only. Replaces an entry of the same name. The store
  // that the name stood for before stays on disk until RemoveStoreIfUnreferenced, for streams may still read it.
  void Put(const v1::Dataset& dataset, const v1::StoreManifest& manifest);

  // Forgets the name, on disk too; true when its store went with it. NotFound. The caller makes sure that nobody reads
  // it.
  absl::StatusOr<bool> Drop(absl::string_view name);

  // Removes the store's files unless a record on disk names it; true when removed. REQUIRES: an id out of a manifest.
  absl::StatusOr<bool> RemoveStoreIfUnreferenced(const std::string& store_id);

  // For replies; `details`: with manifest, sources and options.
  static v1::DatasetInfo Describe(const Entry& entry, bool details);

 private:
  explicit DatasetCatalog(std::string cache_dir) : cache_dir_(std::move(cache_dir)) {}

  std::string cache_dir_;
  std::map<std::string, Entry> entries_;
  std::vector<std::string> problems_;
};

// OK for [A-Za-z0-9][A-Za-z0-9._-]{0,127}, else InvalidArgument.
absl::Status CheckDatasetName(absl::string_view name);

}  // namespace stoker::ingest
