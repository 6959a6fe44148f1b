"""What is read: pure functions from tensors to small statistics, without hooks, state or input and output.

All of them compute in fp32 (fp64 where given fp64) whatever the dtype of the model, keep the device, draw no random
numbers and need no gradient. A number that is undefined for its input (the cosine of a zero vector, the margin without a
runner-up) is NaN, which the store keeps as NULL so that averages leave it out; nothing else ever is NaN for finite input.
"""
