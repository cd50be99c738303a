"""The suite; its folders mirror src/jitlink."""
