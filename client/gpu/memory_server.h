// SPDX-License-Identifier: Apache-2.0
// Hands file descriptors of device memory to other processes of the same user, over a socket in the abstract namespace:
// a descriptor cannot travel by gRPC, its address can.
//
//   absl::StatusOr<std::unique_ptr<MemoryServer>> server = MemoryServer::Start();
//   std::string address = (*server)->Add(std::move(fd));           // here
//   absl::StatusOr<UniqueFd> fd = FetchMemory(address, timeout);   // in another process, or this one
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "shared/base/unique_fd.h"

namespace stoker::gpu {

// Thread-safe. The destructor takes all addresses back; who has fetched a descriptor keeps it.
class MemoryServer {
 public:
  static absl::StatusOr<std::unique_ptr<MemoryServer>> Start();
  ~MemoryServer();

  // The address under which it is handed out, less than 64 bytes; never used again for another.
  std::string Add(UniqueFd memory);
  void Remove(const std::string& address);

 private:
  MemoryServer(std::string name, UniqueFd socket, UniqueFd stop)
      : name_(std::move(name)), socket_(std::move(socket)), stop_(std::move(stop)) {}
  void Run();
  void Serve(const UniqueFd& connection);

  const std::string name_;
  const UniqueFd socket_;
  const UniqueFd stop_;  // an eventfd
  absl::Mutex mu_;
  std::map<std::string, UniqueFd> memory_ ABSL_GUARDED_BY(mu_);  // by address
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 0;
  std::thread thread_;
};

// NotFound when nobody hands it out (any more), PermissionDenied when another user does, DeadlineExceeded.
absl::StatusOr<UniqueFd> FetchMemory(const std::string& address, absl::Duration timeout);

}  // namespace stoker::gpu
