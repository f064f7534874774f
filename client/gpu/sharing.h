// SPDX-License-Identifier: Apache-2.0
// An assembler's part in sharing batches on a device: it uploads some for all sessions of the stream on this device,
// and reads others' copies of the rest. What goes through the daemon, and why nobody has to wait for anybody, is in
// SHARING.md.
//
// A place of the assembler that holds a copy for others is "lent": from the claim until the daemon says that nobody
// uses it. Meanwhile it takes no other batch. Others may keep it longer than the assembler can wait; then the place
// gets other memory, which leaves them what they have, and nothing is lent for a while.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/gpu/device_runtime.h"
#include "client/gpu/memory_server.h"
#include "client/src/batch_data.h"

namespace stoker::gpu {

// Memory of another process, mapped. Must not be written to.
using ImportedMemory = Owned<void*, &DeviceRuntime::CloseImport>;

// Threads: SetPlace, DropPlace, Claim and TakeBack by one thread; the others by any.
class CopySharing {
 public:
  static absl::StatusOr<std::unique_ptr<CopySharing>> Create(DeviceRuntime& runtime);

  // Place `slot` is this memory, made by AllocateExportable, and not what it was before.
  absl::Status SetPlace(size_t slot, void* memory, uint64_t bytes);

  // It is no place any more: who has not mapped it never will.
  void DropPlace(size_t slot);

  // Who uploads the batch that is about to come into place `slot`. Waits a while for another who does.
  struct Copy {
    std::shared_ptr<ImportedMemory> memory;  // to be read as long as the batch's lease is held; null: upload it
    bool lent = false;                       // `slot` is: Uploaded or GiveUp is due
  };
  Copy Claim(const client::BatchData& batch, uint64_t bytes, size_t slot);
  void Uploaded(size_t slot);  // the copy has ended
  void GiveUp(size_t slot);    // it never will

  // The assembler's own use of the place has ended. True: it is lent, and will come by TakeBack.
  bool Return(size_t slot);
  // Places that were lent, were returned, and that nobody else uses. `lost`: somebody may still do; it needs other
  // memory. That is so when the daemon does not know, or is gone, and of one place at a time when the assembler is
  // `in_need`.
  struct Place {
    size_t slot;
    bool lost;
  };
  std::vector<Place> TakeBack(bool in_need);

  // Nobody else is told of any copy any more.
  void Close();

  size_t lent() const;         // places that only others use, or may
  std::string notice() const;  // why a copy of another could not be used

 private:
  struct Lent {
    std::shared_ptr<client::LeaseOwner> owner;
    uint64_t claim;
    bool offered = false, returned = false, withdrawn = false;
  };
  struct Import {
    std::shared_ptr<ImportedMemory> memory;
    absl::Time used;
  };

  CopySharing(DeviceRuntime& runtime, std::unique_ptr<MemoryServer> server)
      : runtime_(runtime), server_(std::move(server)) {}
  absl::StatusOr<std::shared_ptr<ImportedMemory>> Map(const std::string& address, uint64_t bytes);
  void DropIdleImports();

  DeviceRuntime& runtime_;
  const std::unique_ptr<MemoryServer> server_;
  std::map<std::string, Import> imports_;  // by address; this and the next three of Claim's thread
  uint64_t claims_ = 0;
  uint64_t pause_ = 0;       // of lending, the last one
  uint64_t lends_from_ = 0;  // claims: before, nothing is lent

  mutable absl::Mutex mu_;
  std::map<size_t, std::string> places_ ABSL_GUARDED_BY(mu_);  // their addresses
  std::map<size_t, Lent> lent_ ABSL_GUARDED_BY(mu_);
  std::string notice_ ABSL_GUARDED_BY(mu_);
};

}  // namespace stoker::gpu
