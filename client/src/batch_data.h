// SPDX-License-Identifier: Apache-2.0
// What Batch and TensorView share: the place of a batch, the memory it lies in, and the lease on it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "stoker/batch.h"
#include "stoker/v1/batch.pb.h"

namespace stoker::client {

// To whom a lease goes back. Thread-safe.
//
// And by whom sessions share copies of batches in a device's memory (client/gpu/SHARING.md): a copy is named by the
// lease that it was claimed with, even when that has been released.
class LeaseOwner {
 public:
  virtual ~LeaseOwner() = default;
  virtual void Release(uint64_t lease) = 0;

  struct Claimed {
    std::string memory;  // as it was offered: another's copy, to be read until the lease is released; empty: upload it
    bool offer = false;  // for others too: Offer or Withdraw is due
  };
  // Asks who uploads the batch of this lease; waits while another session does. What is answered after the deadline is
  // withdrawn. DeadlineExceeded, Unavailable when the session has ended, or knows nothing of copies.
  virtual absl::StatusOr<Claimed> Claim(uint64_t lease, const std::string& device, bool may_offer,
                                        absl::Time deadline) {
    return absl::UnavailableError("claim: nobody to share with");
  }
  virtual void Offer(uint64_t claim, const std::string& memory) {}
  // Nobody else is told of it from now on.
  virtual void Withdraw(uint64_t claim) {}
  // Whether nobody uses the withdrawn copy any more; true is said once. Unavailable when that
  // cannot be known any more.
  virtual absl::StatusOr<bool> IsFree(uint64_t claim) {
    return absl::UnavailableError("withdraw: nobody to share with");
  }
};

// Immutable once a user has it. The destructor gives the lease back.
class BatchData {
 public:
  // `extent` points at the extent's header inside `memory`, which is kept. REQUIRES: tensor::CheckDescriptor is OK.
  BatchData(v1::BatchDescriptor descriptor, const uint8_t* extent, std::shared_ptr<const void> memory,
            bool inline_memory);
  ~BatchData();
  BatchData(const BatchData&) = delete;
  BatchData& operator=(const BatchData&) = delete;

  void AttachLease(std::shared_ptr<LeaseOwner> owner, uint64_t lease);

  // Who keeps the lease, null if there is none, and its number.
  const std::shared_ptr<LeaseOwner>& owner() const { return owner_; }
  uint64_t lease() const { return lease_; }

  // The whole segment that the extent is a part of, for who makes it known to a device. Empty: not told.
  void SetMapping(absl::Span<const uint8_t> mapping) { mapping_ = mapping; }
  absl::Span<const uint8_t> mapping() const { return mapping_; }
  const std::shared_ptr<const void>& memory() const { return memory_; }  // keeps it mapped
  const uint8_t* extent() const { return extent_; }

  const v1::BatchDescriptor& descriptor() const { return descriptor_; }
  const std::vector<RawTensor>& tensors() const { return tensors_; }
  bool inline_memory() const { return inline_memory_; }

  // DataLoss when the memory is no extent, Aborted when it holds another batch than the descriptor says, or not all of
  // this one yet.
  absl::Status Check() const;

  // Of a batch that was announced before it was sealed.
  enum class State { kMaking, kSealed, kGone };  // kGone: another batch is there
  State state() const;

 private:
  v1::BatchDescriptor descriptor_;
  const uint8_t* extent_;
  std::shared_ptr<const void> memory_;
  absl::Span<const uint8_t> mapping_;
  bool inline_memory_;
  std::vector<int64_t> strides_;  // of all tensors, one after the other
  std::vector<RawTensor> tensors_;
  std::shared_ptr<LeaseOwner> owner_;  // null: no lease
  uint64_t lease_ = 0;
};

}  // namespace stoker::client
