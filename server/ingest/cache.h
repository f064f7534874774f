// SPDX-License-Identifier: Apache-2.0
// The cache directory on disk: where stores, names and stores in the making are, and the lock under which names and
// stores change. Shared by daemons that use the same directory. job.h says what is where.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shared/base/unique_fd.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

class CacheDir {
 public:
  explicit CacheDir(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string stores() const { return path_ + "/stores"; }
  std::string staging() const { return path_ + "/staging"; }
  std::string datasets() const { return path_ + "/datasets"; }
  std::string lock() const { return path_ + "/lock"; }
  std::string Store(const std::string& id) const { return stores() + "/" + id; }
  std::string Staging(const std::string& id) const { return staging() + "/" + id; }
  std::string Record(const std::string& name) const { return datasets() + "/" + name + ".json"; }

  // Makes the directories that are missing. PermissionDenied, ResourceExhausted.
  absl::Status Make() const;

  // Removes all stores and data sets, and the directory if nothing else is in it. Nobody may be using them.
  void Remove() const;

  // Held while names or stores change: short, so waiting long means that something is stuck. FailedPrecondition then.
  absl::StatusOr<UniqueFd> Lock() const;

 private:
  std::string path_;
};

// An exclusive lock on a file or directory that is open, held until the descriptor closes. Polls until `timeout`;
// FailedPrecondition after it, Cancelled when `cancelled` (may be null) says so. `what` is for the message.
absl::Status LockFile(int fd, const std::string& what, absl::Duration timeout, const std::function<bool()>& cancelled);

// NotFound; DataLoss when it is not a record.
absl::StatusOr<v1::Dataset> ReadRecord(const std::string& path);
absl::Status WriteRecord(const std::string& path, const v1::Dataset& dataset);

// The manifest of a published store whose shards all are there with the right sizes; NotFound or DataLoss otherwise.
absl::StatusOr<v1::StoreManifest> ReadCompleteStore(const std::string& store_dir);

// Removes a directory and all in it; OK when it is not there.
absl::Status RemoveTree(const std::string& path);

// Makes names that were created, renamed or removed in a directory durable.
absl::Status SyncDirectory(const std::string& path);

}  // namespace stoker::ingest
