// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"
#include "shared/store/time_series_store.h"

namespace stoker::ingest {
namespace {

constexpr absl::Duration kLockTimeout = absl::Seconds(30);
constexpr absl::Duration kLockPoll = absl::Milliseconds(20);
constexpr uint64_t kRecordLimitBytes = 1 << 30;  // a source may be a million files

// So that no record leads outside the cache directory.
bool IsStoreId(absl::string_view id) {
  return !id.empty() &&
         std::all_of(id.begin(), id.end(), [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); });
}

}  // namespace

absl::Status CacheDir::Make() const {
  for (const std::string& directory : {stores(), staging(), datasets()}) {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error) return ErrnoStatus(error.value(), "making the cache directory", directory);
  }
  return absl::OkStatus();
}

void CacheDir::Remove() const {
  std::error_code error;
  for (const std::string& path : {stores(), staging(), datasets(), lock()}) std::filesystem::remove_all(path, error);
  std::filesystem::remove(path_, error);
}

absl::StatusOr<UniqueFd> CacheDir::Lock() const {
  STOKER_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(lock(), O_RDWR | O_CREAT, 0644));
  STOKER_RETURN_IF_ERROR(LockFile(fd.get(), lock(), kLockTimeout, nullptr));
  return fd;
}

absl::Status LockFile(int fd, const std::string& what, absl::Duration timeout, const std::function<bool()>& cancelled) {
  const absl::Time deadline = absl::Now() + timeout;
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return ErrnoStatus(errno, "lock", what);
    if (cancelled && cancelled()) return absl::CancelledError(absl::StrCat("lock: ", what, ": cancelled"));
    if (absl::Now() >= deadline) {
      return absl::FailedPreconditionError(absl::StrCat("lock: ", what, ": another process holds it for ",
                                                        absl::FormatDuration(timeout), "; try again later"));
    }
    absl::SleepFor(kLockPoll);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Dataset> ReadRecord(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kRecordLimitBytes));
  v1::Dataset dataset;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &dataset, options);
  if (!parsed.ok() || dataset.name().empty() || !IsStoreId(dataset.store())) {
    return absl::DataLossError(absl::StrCat("reading ", path, ": not a data-set record; ingest the source again"));
  }
  return dataset;
}

absl::Status WriteRecord(const std::string& path, const v1::Dataset& dataset) {
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  const auto printed = google::protobuf::util::MessageToJsonString(dataset, &json, options);
  if (!printed.ok()) return absl::InternalError(absl::StrCat("writing ", path, ": ", std::string(printed.message())));
  return WriteFileAtomically(path, json);
}

absl::StatusOr<v1::StoreManifest> ReadCompleteStore(const std::string& store_dir) {
  STOKER_ASSIGN_OR_RETURN(v1::StoreManifest manifest,
                          store::ReadManifest(absl::StrCat(store_dir, "/", store::kManifestName)));
  for (const v1::ShardInfo& shard : manifest.shards()) {
    const std::string path = absl::StrCat(store_dir, "/", shard.file());
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "reading", path);
    if (static_cast<uint64_t>(info.st_size) != shard.size_bytes()) {
      return absl::DataLossError(absl::StrCat("reading ", path, ": ", info.st_size, " bytes, the manifest says ",
                                              shard.size_bytes(), "; ingest the source again"));
    }
  }
  return manifest;
}

absl::Status RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? ErrnoStatus(error.value(), "remove", path) : absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY));
  return ::fsync(fd.get()) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "fsync", path);
}

}  // namespace stoker::ingest
