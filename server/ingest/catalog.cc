// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/catalog.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/ingest/cache.h"
#include "server/ingest/text.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr char kRecordSuffix[] = ".json";

// Paths in a directory, sorted; none when it is not there.
absl::StatusOr<std::vector<std::filesystem::path>> List(const std::string& directory) {
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  std::filesystem::directory_iterator entries(directory, error), end;
  while (!error && entries != end) {
    paths.push_back(entries->path());
    entries.increment(error);
  }
  if (error && error.value() != ENOENT) return ErrnoStatus(error.value(), "reading", directory);
  std::sort(paths.begin(), paths.end());
  return paths;
}

absl::StatusOr<std::vector<std::filesystem::path>> ListRecords(const CacheDir& cache) {
  STOKER_ASSIGN_OR_RETURN(std::vector<std::filesystem::path> paths, List(cache.datasets()));
  std::erase_if(paths, [](const std::filesystem::path& path) { return path.extension() != kRecordSuffix; });
  return paths;
}

// Stores in the making that nobody came back for. Errors are left for the next start: it is only space.
void RemoveStaleStaging(const CacheDir& cache, absl::Duration age) {
  const absl::StatusOr<std::vector<std::filesystem::path>> paths = List(cache.staging());
  if (!paths.ok()) return;
  for (const std::filesystem::path& path : *paths) {
    struct stat info;
    if (::stat(path.c_str(), &info) != 0 || absl::Now() - absl::TimeFromTimespec(info.st_mtim) < age) continue;
    const absl::StatusOr<UniqueFd> fd = OpenFile(path.string(), O_RDONLY | O_DIRECTORY);
    if (fd.ok() && LockFile(fd->get(), path.string(), absl::ZeroDuration(), nullptr).ok())
      (void)RemoveTree(path.string());
  }
}

// Stores that lost their name, or never got one, when a daemon was killed. REQUIRES: no record is broken.
absl::Status RemoveNamelessStores(const CacheDir& cache) {
  STOKER_ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> stores, List(cache.stores()));
  if (stores.empty()) return absl::OkStatus();
  STOKER_ASSIGN_OR_RETURN(const UniqueFd lock, cache.Lock());
  STOKER_ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> records, ListRecords(cache));
  std::set<std::string> named;
  for (const std::filesystem::path& path : records) {
    STOKER_ASSIGN_OR_RETURN(const v1::Dataset dataset, ReadRecord(path.string()));
    named.insert(dataset.store());
  }
  for (const std::filesystem::path& path : stores) {
    if (!named.contains(path.filename().string())) STOKER_RETURN_IF_ERROR(RemoveTree(path.string()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckDatasetName(absl::string_view name) {
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  };
  if (!name.empty() && name.size() <= kMaxNameBytes && absl::ascii_isalnum(static_cast<unsigned char>(name[0])) &&
      std::all_of(name.begin(), name.end(), allowed)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("data set name ", Quoted(name),
                   ": it takes letters, digits, '.', '_' and '-', begins with a letter or "
                   "digit, and has at most ",
                   kMaxNameBytes, " characters"));
}

absl::StatusOr<DatasetCatalog> DatasetCatalog::Load(const std::string& cache_dir, absl::Duration staging_age) {
  DatasetCatalog catalog(cache_dir);
  const CacheDir cache(cache_dir);
  STOKER_ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> records, ListRecords(cache));
  for (const std::filesystem::path& path : records) {
    absl::StatusOr<v1::Dataset> dataset = ReadRecord(path.string());
    if (dataset.ok() && dataset->name() != path.stem().string()) {
      dataset = absl::DataLossError(absl::StrCat("reading ", path.string(), ": it is of ", Quoted(dataset->name()),
                                                 "; rename it, or ingest the source again"));
    }
    if (!dataset.ok()) {
      catalog.problems_.emplace_back(dataset.status().message());
      continue;
    }
    Entry entry;
    entry.store_dir = cache.Store(dataset->store());
    absl::StatusOr<v1::StoreManifest> manifest = ReadCompleteStore(entry.store_dir);
    if (!manifest.ok()) {
      catalog.problems_.push_back(
          absl::StrCat("data set ", dataset->name(), ": ", manifest.status().message(), "; ingest its source again"));
      continue;
    }
    entry.dataset = *std::move(dataset);
    entry.manifest = *std::move(manifest);
    const std::string name = entry.dataset.name();
    catalog.entries_[name] = std::move(entry);
  }
  if (catalog.problems_.empty()) {
    if (const absl::Status removed = RemoveNamelessStores(cache); !removed.ok()) {
      catalog.problems_.push_back(absl::StrCat("removing stores without a name: ", removed.message()));
    }
  }
  RemoveStaleStaging(cache, staging_age);
  return catalog;
}

const DatasetCatalog::Entry* DatasetCatalog::Find(absl::string_view name) const {
  const auto found = entries_.find(std::string(name));
  return found == entries_.end() ? nullptr : &found->second;
}

void DatasetCatalog::Put(const v1::Dataset& dataset, const v1::StoreManifest& manifest) {
  entries_[dataset.name()] = {dataset, manifest, CacheDir(cache_dir_).Store(dataset.store())};
}

absl::StatusOr<bool> DatasetCatalog::Drop(absl::string_view name) {
  const auto found = entries_.find(std::string(name));
  if (found == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat("data set ", Quoted(name), ": there is none of that name; see stokerctl datasets"));
  }
  const CacheDir cache(cache_dir_);
  const std::string store = found->second.dataset.store();
  {
    STOKER_ASSIGN_OR_RETURN(const UniqueFd lock, cache.Lock());
    const std::string path = cache.Record(found->first);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, "remove", path);
    STOKER_RETURN_IF_ERROR(SyncDirectory(cache.datasets()));
  }
  entries_.erase(found);
  return RemoveStoreIfUnreferenced(store);
}

absl::StatusOr<bool> DatasetCatalog::RemoveStoreIfUnreferenced(const std::string& store_id) {
  const CacheDir cache(cache_dir_);
  STOKER_ASSIGN_OR_RETURN(const UniqueFd lock, cache.Lock());
  STOKER_ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> records, ListRecords(cache));
  for (const std::filesystem::path& path : records) {
    const absl::StatusOr<v1::Dataset> dataset = ReadRecord(path.string());
    if (dataset.ok() && dataset->store() == store_id) return false;
  }
  STOKER_RETURN_IF_ERROR(RemoveTree(cache.Store(store_id)));
  return true;
}

v1::DatasetInfo DatasetCatalog::Describe(const Entry& entry, bool details) {
  v1::DatasetInfo info;
  info.set_name(entry.dataset.name());
  info.set_kind(entry.manifest.kind());
  info.set_samples(entry.manifest.samples());
  info.set_bytes(entry.manifest.bytes());
  info.set_ingested_unix_seconds(entry.dataset.ingested_unix_seconds());
  if (!details) return info;
  *info.mutable_manifest() = entry.manifest;
  *info.mutable_sources() = entry.dataset.sources();
  *info.mutable_options() = entry.dataset.options();
  return info;
}

}  // namespace stoker::ingest
