"""`tq completion`: the script that teaches a shell the words of tq."""




SHELLS = ("bash", "zsh", "fish")
VERBS = {}
