#!/bin/sh
# A task that takes its time: one line every half second, with the process that prints it.
for step in 1 2 3 4 5 6; do
    echo "step $step of process $$"
    sleep 0.5
done
